"""What we say about one series: a category with its probability, or why there is none."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from triage.core.volume import Rejection


class Category(StrEnum):
    """The two groups of the paper. The values are the public API's."""

    ASPECTS_1_6 = "ASPECTS_1_6"
    ASPECTS_7_10 = "ASPECTS_7_10"

    @property
    def is_urgent(self) -> bool:
        """Whether a person has to be called."""
        return self is Category.ASPECTS_1_6


@dataclass(frozen=True, slots=True)
class Finding:
    """The network's answer.

    probability: of DWI-ASPECTS 1-6, 0..1, calibrated.
    threshold: 0..1; probabilities at or above it are ASPECTS 1-6.
    """

    probability: float
    threshold: float

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must be within 0..1, got {self.probability}")
        # Compared with NaN, every probability would be ASPECTS 7-10.
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be within 0..1, got {self.threshold}")

    @property
    def category(self) -> Category:
        """The group that the probability falls into.

        >>> Finding(0.5, 0.5).category.value
        'ASPECTS_1_6'
        """
        return Category.ASPECTS_1_6 if self.probability >= self.threshold else Category.ASPECTS_7_10


Outcome: TypeAlias = Finding | Rejection
"""What a diffusion series ends in. There is no third thing, and neither is ever silent."""
