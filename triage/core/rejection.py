"""Why a series was not assessed: the outcomes that are no volume."""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a diffusion series was not assessed. The values are the public API's."""

    NO_B1000 = "NO_B1000"
    B_VALUE_UNKNOWN = "B_VALUE_UNKNOWN"
    INCOMPLETE = "INCOMPLETE"
    UNEVEN_SPACING = "UNEVEN_SPACING"
    MIXED_GEOMETRY = "MIXED_GEOMETRY"
    NOT_AXIAL = "NOT_AXIAL"
    LOSSY = "LOSSY"
    UNREADABLE = "UNREADABLE"
    INFERENCE_FAILED = "INFERENCE_FAILED"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A diffusion series that cannot be judged.

    detail: one sentence for a technologist, with the values found; never a patient identifier.
    """

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class NotDiffusion:
    """A series that is not ours to judge (T1, FLAIR, fMRI, a derived map), and how we know."""

    detail: str
