"""The paper's preprocessing: slice filter, brain crop, contrast stretch, resize.

Do et al., Diagnostics 2020;10:803, sections 2.2 to 2.4. What the paper leaves open is a named setting
here and is written into each model's spec.json. Training and serving both call `preprocess`; there is
no second implementation.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy import ndimage

from triage.core.volume import DwiVolume, Voxels


class PreprocessSettings(BaseModel):
    """What the paper fixes, and what it leaves open.

    caudal_fraction, cranial_fraction: share of the volume's extent along the slice normal that is
        dropped at either end (paper: about 35% and 15%).
    slices: network slices, resampled along the normal (paper: about 20 remain).
    size: rows and columns of a network slice (paper: 80).
    low_percentile, high_percentile: of all voxels of the uncropped volume; they become 0 and 255.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    caudal_fraction: float = Field(0.35, ge=0, lt=1)
    cranial_fraction: float = Field(0.15, ge=0, lt=1)
    slices: int = Field(20, ge=1)
    size: int = Field(80, ge=8)
    low_percentile: float = Field(80.0, ge=0, lt=100)
    high_percentile: float = Field(99.0, gt=0, le=100)

    @model_validator(mode="after")
    def _leave_something(self) -> Self:
        if self.caudal_fraction + self.cranial_fraction >= 1:
            raise ValueError("caudal_fraction and cranial_fraction must leave slices: their sum is 1 or more")
        if self.low_percentile >= self.high_percentile:
            raise ValueError("low_percentile must be below high_percentile")
        return self


class Box(NamedTuple):
    """In-plane bounds of the brain in voxels; `bottom` and `right` are exclusive."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessed:
    """What the network sees, and where in the volume it came from.

    input_ZYX: float32, 0..255, shape (slices, size, size), caudal to cranial.
    slice_positions: fractional slice index of each network slice in the volume.
    box: the in-plane crop, in voxels of the volume.
    """

    input_ZYX: Voxels
    slice_positions: NDArray[np.float64]
    box: Box


def preprocess(volume: DwiVolume, settings: PreprocessSettings) -> Preprocessed:
    """The network's input, made from a b=1000 volume exactly as in training."""
    positions = slice_positions(volume.voxels_ZYX.shape[0], settings)
    planes_ZYX = resample_slices(volume.voxels_ZYX, positions)
    box = brain_box(planes_ZYX)
    low, high = np.percentile(volume.voxels_ZYX, [settings.low_percentile, settings.high_percentile])
    stretched_ZYX = stretch_contrast(crop(planes_ZYX, box), float(low), float(high))
    return Preprocessed(input_ZYX=resize(stretched_ZYX, settings.size), slice_positions=positions, box=box)


def slice_positions(slice_count: int, settings: PreprocessSettings) -> NDArray[np.float64]:
    """Centres of the network slices, in fractional slice indices, caudal to cranial.

    The extent runs from the lower face of the first slice to the upper face of the last.

    >>> slice_positions(40, PreprocessSettings())[[0, -1]].tolist()
    [14.0, 33.0]
    """
    lowest = settings.caudal_fraction * slice_count - 0.5
    highest = (1 - settings.cranial_fraction) * slice_count - 0.5
    step = (highest - lowest) / settings.slices
    return np.asarray(lowest + step * (np.arange(settings.slices) + 0.5), np.float64)


def resample_slices(voxels_ZYX: Voxels, positions: NDArray[np.float64]) -> Voxels:
    """The volume at fractional slice indices: linear between neighbours, the end slices beyond them."""
    clamped = np.clip(positions, 0, voxels_ZYX.shape[0] - 1)
    below = np.floor(clamped).astype(np.intp)
    above = np.minimum(below + 1, voxels_ZYX.shape[0] - 1)
    weight_Z11 = (clamped - below).astype(np.float32)[:, None, None]
    planes_ZYX: Voxels = voxels_ZYX[below] * (1 - weight_Z11) + voxels_ZYX[above] * weight_Z11
    return planes_ZYX


def brain_box(planes_ZYX: Voxels) -> Box:
    """In-plane bounds of the brain over all planes, from the intensity histogram.

    Air and tissue are told apart by Otsu's threshold on the logarithm of the intensity: on a linear
    scale a large bright infarct would pull the threshold above normal brain. The largest connected
    region is the head. A volume without contrast keeps its whole field of view.
    """
    head = np.asarray(_head_mask(planes_ZYX))
    rows, columns = np.flatnonzero(head.any(axis=(0, 2))), np.flatnonzero(head.any(axis=(0, 1)))
    if rows.size < 2 or columns.size < 2:
        return Box(0, planes_ZYX.shape[1], 0, planes_ZYX.shape[2])
    return Box(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def crop(planes_ZYX: Voxels, box: Box) -> Voxels:
    """The planes inside the box."""
    return planes_ZYX[:, box.top : box.bottom, box.left : box.right]


def stretch_contrast(planes_ZYX: Voxels, low: float, high: float) -> Voxels:
    """Intensities `low`..`high` brought to 0..255 and clipped (the paper's formula 1).

    Where low and high are one, what lies above them is 255 and the rest 0.

    >>> stretch_contrast(np.array([[[5.0, 10.0, 20.0, 40.0]]], np.float32), 10.0, 30.0).tolist()
    [[[0.0, 0.0, 127.5, 255.0]]]
    """
    if high <= low:
        return np.where(planes_ZYX > low, 255, 0).astype(np.float32)
    stretched_ZYX = np.clip((planes_ZYX - low) * (255.0 / (high - low)), 0, 255)
    return np.asarray(stretched_ZYX, np.float32)


def resize(planes_ZYX: Voxels, size: int) -> Voxels:
    """Each plane brought to `size` x `size` by cubic interpolation, pixel areas aligned, 0..255."""
    zoom = (1.0, size / planes_ZYX.shape[1], size / planes_ZYX.shape[2])
    resized = ndimage.zoom(planes_ZYX, zoom, order=3, mode="nearest", grid_mode=True)
    return np.asarray(np.clip(resized, 0, 255), np.float32)


def _head_mask(planes_ZYX: Voxels) -> NDArray[np.bool_]:
    positive = np.clip(planes_ZYX, 0, None)
    scale = float(np.percentile(positive, 99)) / 100
    if scale <= 0:
        return np.zeros(planes_ZYX.shape, bool)
    logarithm = np.log1p(positive / scale)
    tissue = logarithm > otsu_threshold(logarithm)
    opened = ndimage.binary_opening(tissue, np.ones((1, 3, 3), bool))
    regions, count = ndimage.label(opened)
    if count == 0:
        return np.zeros(planes_ZYX.shape, bool)
    return np.asarray(regions == 1 + np.argmax(np.bincount(regions.ravel())[1:]))


def otsu_threshold(values: Voxels) -> float:
    """The value that best parts a histogram of 256 bins in two classes (Otsu 1979)."""
    counts, edges = np.histogram(values, 256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = counts.sum() - below
    sum_below = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_below = sum_below / below
        mean_above = (sum_below[-1] - sum_below) / above
        between = np.nan_to_num(below * above * (mean_below - mean_above) ** 2)
    return float(edges[int(np.argmax(between)) + 1])
