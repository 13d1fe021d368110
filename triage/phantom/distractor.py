"""Bright or dark things in a brain that cost no ASPECTS point.

Each is drawn as a pair of maps, like the infarct that counts: ADC ratio and T2 ratio to healthy tissue.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from triage.phantom.heads import (
    ANTERIOR_CEREBRAL,
    POSTERIOR_CEREBRAL,
    POSTERIOR_FOSSA,
    SPACING_MM,
    Head,
)
from triage.phantom.lesion import Severity
from triage.phantom.texture import random_field
from triage.phantom.tissue import LAST_PARENCHYMA, Tissue

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

WHITE_MATTER_DISEASE: Final = "white matter disease"
OLD_INFARCT: Final = "old infarct"
ELSEWHERE: Final[dict[str, int]] = {
    "anterior cerebral infarct": ANTERIOR_CEREBRAL,
    "posterior cerebral infarct": POSTERIOR_CEREBRAL,
    "cerebellar or brain-stem infarct": POSTERIOR_FOSSA,
}
SHARE_WHITE_MATTER_DISEASE: Final = 0.35
SHARE_OLD_INFARCT: Final = 0.12
SHARE_ELSEWHERE: Final = 0.12


@dataclass(frozen=True, slots=True, kw_only=True)
class Distractor:
    """One finding that must not count."""

    name: str
    severity: Severity


def draw_distractors(rng: np.random.Generator, head: Head, acute_ZYX: Bools) -> tuple[Distractor, ...]:
    """What else this brain has, each kind in its own share of studies.

    acute_ZYX: the infarct that counts; distractors stay out of it.
    """
    drawn: list[Distractor] = []
    if rng.random() < SHARE_WHITE_MATTER_DISEASE:
        drawn.append(white_matter_disease(rng, head, acute_ZYX))
    if rng.random() < SHARE_OLD_INFARCT:
        drawn.append(old_infarct(rng, head, acute_ZYX))
    if rng.random() < SHARE_ELSEWHERE:
        drawn.append(infarct_elsewhere(rng, head, acute_ZYX))
    return tuple(drawn)


def white_matter_disease(rng: np.random.Generator, head: Head, acute_ZYX: Bools) -> Distractor:
    """T2 shine-through around the ventricles: T2 up by 15 to 45 per cent, ADC 5 to 25 per cent."""
    reach_mm = rng.uniform(3.0, 12.0)
    near = reach_mm - head.ventricle_distance_mm_ZYX + 4.0 * random_field(rng, head.shape, 6.0)
    white = head.fraction_KZYX[Tissue.WHITE_MATTER] > 160
    amount = np.clip(near / 3.0, 0.0, 1.0) * (white & ~acute_ZYX)
    return Distractor(
        name=WHITE_MATTER_DISEASE,
        severity=_changed(amount, adc_ratio=rng.uniform(1.05, 1.25), t2_ratio=rng.uniform(1.15, 1.45)),
    )


def old_infarct(rng: np.random.Generator, head: Head, acute_ZYX: Bools) -> Distractor:
    """A scar anywhere in the brain: ADC 1200-2000, T2 well up."""
    brain = head.fraction_KZYX[: LAST_PARENCHYMA + 1].max(axis=0) > 160
    amount = _blob(rng, head, brain & ~acute_ZYX, rng.uniform(6.0, 16.0))
    return Distractor(
        name=OLD_INFARCT,
        severity=_changed(amount, adc_ratio=rng.uniform(1.6, 2.6), t2_ratio=rng.uniform(1.3, 2.0)),
    )


def infarct_elsewhere(rng: np.random.Generator, head: Head, acute_ZYX: Bools) -> Distractor:
    """An acute infarct outside the territory that ASPECTS reads."""
    name = list(ELSEWHERE)[int(rng.integers(len(ELSEWHERE)))]
    allowed = (head.territory_ZYX == ELSEWHERE[name]) & ~acute_ZYX
    amount = _blob(rng, head, allowed, rng.uniform(8.0, 22.0))
    return Distractor(
        name=name,
        severity=_changed(amount, adc_ratio=rng.uniform(0.48, 0.75), t2_ratio=rng.uniform(1.0, 1.2)),
    )


def _blob(rng: np.random.Generator, head: Head, allowed: Bools, radius_mm: float) -> Floats:
    """A ragged ball around a random allowed voxel, 0..1."""
    candidates = np.flatnonzero(allowed)
    if candidates.size == 0:
        return np.zeros(head.shape, np.float32)
    centre = np.unravel_index(int(rng.choice(candidates)), head.shape)
    z, y, x = (
        (np.arange(n, dtype=np.float32) - c) * SPACING_MM for n, c in zip(head.shape, centre, strict=True)
    )
    distance = np.sqrt(z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2)
    ragged = radius_mm - distance + 0.3 * radius_mm * random_field(rng, head.shape, 5.0)
    return np.asarray(np.clip(ragged / 2.0, 0.0, 1.0) * allowed, np.float32)


def _changed(amount: Floats, *, adc_ratio: float, t2_ratio: float) -> Severity:
    return Severity(
        adc_ratio_ZYX=np.asarray(1.0 + amount * (adc_ratio - 1.0), np.float32),
        t2_ratio_ZYX=np.asarray(1.0 + amount * (t2_ratio - 1.0), np.float32),
    )
