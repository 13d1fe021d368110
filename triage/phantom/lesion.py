"""Acute infarcts of the middle cerebral artery, brought to a drawn coverage of each region.

Regions are picked by clinical frequency and adjacency. Multi-scale random fields give the infarct its
shape; a bias a region is turned until the field fills the share that was drawn for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from triage.phantom import aspects
from triage.phantom.heads import SPACING_MM, Head
from triage.phantom.texture import random_field
from triage.phantom.tissue import Tissue

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Side = Literal["left", "right"]
Window = tuple[slice, slice, slice]

ROUNDS: Final = 5
NEVER: Final = -6.0
MAX_DRAWS: Final = 60
FIELD_SCALES_MM: Final = ((16.0, 0.60), (7.0, 0.35), (3.5, 0.15))
SMALL_SPILL_SHARE: Final = 0.35


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesion:
    """One acute infarct on the head's grid.

    mask_ZYX: True inside.
    coverage: infarcted share of each of the ten regions of that side, in the order of REGIONS.
    volume_ml: of the mask.
    """

    side: Side
    mask_ZYX: Bools
    coverage: tuple[float, ...]
    volume_ml: float


def draw_lesion(rng: np.random.Generator, head: Head, requested_aspects: int, rule: str) -> Lesion:
    """An infarct whose ASPECTS under the named rule is the one requested.

    Raises ValueError when the score is outside 0..10 and RuntimeError when no draw reaches it.
    """
    if not 0 <= requested_aspects <= 10:
        raise ValueError(f"ASPECTS {requested_aspects}: expected 0 to 10")
    for _ in range(MAX_DRAWS):
        side: Side = "left" if rng.random() < 0.5 else "right"
        lesion = grow(rng, head, side, draw_coverage(rng, 10 - requested_aspects))
        if aspects.score(lesion.coverage, rule) == requested_aspects:
            return lesion
    raise RuntimeError(f"{head.name}: no infarct with ASPECTS {requested_aspects} in {MAX_DRAWS} draws")


def draw_coverage(rng: np.random.Generator, region_count: int) -> tuple[float, ...]:
    """Coverage aimed at, per region: what counts grows with the number of regions hit.

    A severity per stroke spreads volumes within one score, as they spread in patients.
    Some neighbours get 2 to 16 per cent, which the default rule does not count.
    """
    counted = pick_regions(rng, region_count)
    severity = rng.uniform(0.35, 1.65)
    mean = float(np.clip((0.16 + 0.075 * region_count) * severity, 0.12, 0.88))
    spilled = [
        name
        for name in aspects.REGIONS
        if name not in counted and rng.random() < _spill_probability(name, counted)
    ]

    def share(name: str) -> float:
        if name in counted:
            return float(np.clip(rng.beta(2.2 * mean / (1.0 - mean) + 0.3, 2.2), 0.24, 0.97))
        return float(rng.uniform(0.02, 0.16)) if name in spilled else 0.0

    return tuple(share(name) for name in aspects.REGIONS)


def pick_regions(rng: np.random.Generator, count: int) -> list[str]:
    """Regions that are hit: the first by clinical frequency, the next rather beside it."""
    picked: list[str] = []
    while len(picked) < count:
        weights = np.array([_pick_weight(name, picked) for name in aspects.REGIONS])
        picked.append(aspects.REGIONS[int(rng.choice(10, p=weights / weights.sum()))])
    return picked


def grow(rng: np.random.Generator, head: Head, side: Side, target: Sequence[float]) -> Lesion:
    """Fill each region of one side to about its target share."""
    window, region, catchment, open_tissue = _hemisphere(head, side)
    texture = _texture(rng, region.shape)
    bias = np.array([NEVER] + [0.0 if share > 0 else NEVER for share in target], np.float32)
    members = [np.flatnonzero((region == k) & open_tissue) for k in range(11)]
    level = _level(bias, catchment, texture)
    for _ in range(ROUNDS):
        for k, share in enumerate(target, start=1):
            if share > 0 and members[k].size:
                bias[k] -= 0.9 * np.quantile(level.ravel()[members[k]], 1.0 - share)
        level = _level(bias, catchment, texture)
    inside = (level > 0.0) & open_tissue
    mask = np.zeros(head.shape, bool)
    mask[window] = inside
    return Lesion(
        side=side,
        mask_ZYX=mask,
        coverage=tuple(_share(inside, region == k) for k in range(1, 11)),
        volume_ml=float(inside.sum()) * SPACING_MM**3 / 1000.0,
    )


def _hemisphere(head: Head, side: Side) -> tuple[Window, Bytes, Bytes, Bools]:
    """Window around one side; in it regions and catchments as 0..10, and tissue that can infarct."""
    first = 1 if side == "left" else 11
    of_side = _renumber(first)
    catchment = of_side[head.catchment_ZYX]
    z, y, x = ndimage.find_objects((catchment > 0).astype(np.uint8))[0]
    window = (_widen(z), _widen(y), _widen(x))
    tissue = head.fraction_KZYX[: Tissue.PALLIDUM + 1, *window]
    parenchyma = tissue.sum(axis=0, dtype=np.uint16) > 127
    return window, of_side[head.region_ZYX[window]], catchment[window], parenchyma


def _renumber(first: int) -> Bytes:
    table = np.zeros(256, np.uint8)
    table[first : first + 10] = np.arange(1, 11)
    return table


def _widen(span: slice) -> slice:
    return slice(max(span.start - 3, 0), span.stop + 3)


def _texture(rng: np.random.Generator, shape: Sequence[int]) -> Floats:
    z, y, x = shape
    fields = [w * random_field(rng, (z, y, x), scale / SPACING_MM) for scale, w in FIELD_SCALES_MM]
    return np.asarray(sum(fields), np.float32)


def _level(bias: Floats, catchment: Bytes, texture: Floats) -> Floats:
    smooth = ndimage.gaussian_filter(bias[catchment], 1.2, truncate=2.5)
    return np.asarray(smooth + texture, np.float32)


def _share(inside: Bools, of_region: Bools) -> float:
    total = int(of_region.sum())
    return float((inside & of_region).sum()) / total if total else 0.0


def _pick_weight(name: str, picked: Sequence[str]) -> float:
    if name in picked:
        return 0.0
    touching = sum(neighbour in picked for neighbour in aspects.NEIGHBOURS[name])
    return aspects.CLINICAL_FREQUENCY[name] * (1.0 + 4.0 * touching)


def _spill_probability(name: str, counted: Sequence[str]) -> float:
    if not counted:
        # A stroke that costs no point still has to be somewhere.
        return 0.25
    touches = any(neighbour in counted for neighbour in aspects.NEIGHBOURS[name])
    return SMALL_SPILL_SHARE if touches else 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Severity:
    """How an infarct changes diffusion and T2: maps of the ratio to healthy tissue."""

    adc_ratio_ZYX: Floats
    t2_ratio_ZYX: Floats


def draw_severity(rng: np.random.Generator, lesion: Lesion, blur_voxels: float = 0.7) -> Severity:
    """Acute core (ADC 350-650, T2 up to +20 per cent), or in one of five subacute (T2 up to +60)."""
    shape = lesion.mask_ZYX.shape
    window = ndimage.find_objects(lesion.mask_ZYX.astype(np.uint8))
    if not window:
        ones = np.ones(shape, np.float32)
        return Severity(adc_ratio_ZYX=ones, t2_ratio_ZYX=ones)
    z, y, x = (_widen(span) for span in window[0])
    core = ndimage.gaussian_filter(lesion.mask_ZYX[z, y, x].astype(np.float32), blur_voxels)
    subacute = rng.random() < 0.2
    floor = rng.uniform(0.44, 0.70)
    adc = np.clip(floor + 0.07 * random_field(rng, core.shape, 4.0), 0.38, 0.92)
    t2_rise = rng.uniform(0.25, 0.60) if subacute else rng.uniform(0.0, 0.20)
    t2 = 1.0 + t2_rise * np.clip(1.0 + 0.4 * random_field(rng, core.shape, 6.0), 0.2, 1.8)
    return Severity(
        adc_ratio_ZYX=_placed(shape, (z, y, x), 1.0 + core * (adc - 1.0)),
        t2_ratio_ZYX=_placed(shape, (z, y, x), 1.0 + core * (t2 - 1.0)),
    )


def _placed(shape: Sequence[int], window: Window, values: Floats) -> Floats:
    whole = np.ones(shape, np.float32)
    whole[window] = values
    return whole
