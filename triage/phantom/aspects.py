"""The ten regions, and the named rules that turn their coverage into a score.

DWI-ASPECTS has no single rule for how much of a region must be bright before it costs a point, so a
coverage vector is kept with every study and the rule is named wherever a score is shown.
"""

from collections.abc import Sequence
from typing import Final

REGIONS: Final = ("C", "L", "IC", "I", "M1", "M2", "M3", "M4", "M5", "M6")
NEIGHBOURS: Final[dict[str, tuple[str, ...]]] = {
    "C": ("L", "IC"),
    "L": ("C", "IC", "I"),
    "IC": ("L", "C"),
    "I": ("L", "M1", "M2", "M5"),
    "M1": ("I", "M4", "M2"),
    "M2": ("I", "M1", "M3", "M5"),
    "M3": ("M2", "M6"),
    "M4": ("M1", "M5"),
    "M5": ("M4", "M6", "M2", "I"),
    "M6": ("M5", "M3"),
}
CLINICAL_FREQUENCY: Final[dict[str, float]] = {
    "C": 0.45, "L": 0.70, "IC": 0.30, "I": 0.85,
    "M1": 0.40, "M2": 0.50, "M3": 0.35, "M4": 0.40, "M5": 0.60, "M6": 0.40,
}  # fmt: skip
RULES: Final[dict[str, tuple[float, ...]]] = {
    "any>=3%": (0.03,) * 10,
    "20%": (0.20,) * 10,
    "detailed": (0.20,) * 4 + (0.50,) * 6,
}
DEFAULT_RULE: Final = "20%"


def score(coverage: Sequence[float], rule: str = DEFAULT_RULE) -> int:
    """ASPECTS, 0 to 10: ten less one for each region covered at least as far as the rule asks.

    coverage: share of each region that is infarcted, 0..1, in the order of REGIONS.
    rule: a key of RULES. `detailed` asks for half of a cortical region and a fifth of a deep one.

    >>> score([0.5, 0.1] + [0.0] * 8)
    9
    """
    return 10 - sum(share >= limit for share, limit in zip(coverage, RULES[rule], strict=True))


def ambiguous(coverage: Sequence[float]) -> tuple[str, ...]:
    """Regions covered by 5 to 20 per cent, about which careful readers disagree.

    >>> ambiguous([0.1] + [0.5] * 9)
    ('C',)
    """
    return tuple(name for name, share in zip(REGIONS, coverage, strict=True) if 0.05 < share < 0.20)
