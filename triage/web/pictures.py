"""Voxels -> what a browser can show: 8-bit grey PNG, one a slice."""

import io
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from triage.core.volume import Triple, Voxels

Grey: TypeAlias = NDArray[np.uint8]

_LARGEST_STRETCH = 8.0
_LOW_PERCENTILE, _HIGH_PERCENTILE = 1.0, 99.5


@dataclass(frozen=True, slots=True)
class Pictures:
    """A volume ready to be shown.

    grey_ZYX: 0..255, slices caudal to cranial, columns from patient right to patient left.
    seen: indices of the slices that went into the network's input.
    spacing_mm: (slice, row, column).
    """

    grey_ZYX: Grey
    seen: frozenset[int]
    spacing_mm: Triple

    def png(self, index: int) -> bytes:
        """One slice with square pixels. Raises IndexError."""
        if not 0 <= index < len(self.grey_ZYX):
            raise IndexError(index)
        image = Image.fromarray(self.grey_ZYX[index])
        if image.size != self.size:
            image = image.resize(self.size, Image.Resampling.BILINEAR)
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=3)
        return file.getvalue()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of each PNG. Pixels that are not square are stretched, never shrunk."""
        _, rows, columns = self.grey_ZYX.shape
        _, row_mm, column_mm = self.spacing_mm
        # Headers can say anything; a picture must not take all of the memory for it.
        finest_mm = max(min(row_mm, column_mm), max(row_mm, column_mm) / _LARGEST_STRETCH)
        return round(columns * column_mm / finest_mm), round(rows * row_mm / finest_mm)


def pictures_of(voxels_ZYX: Voxels, slice_positions: NDArray[np.float64], spacing_mm: Triple) -> Pictures:
    """A volume in one window for all slices, so that they can be compared.

    slice_positions: fractional slice indices of the network's slices, each a mean of its two neighbours.
    """
    return Pictures(windowed(voxels_ZYX), seen_slices(slice_positions, len(voxels_ZYX)), spacing_mm)


def windowed(voxels_ZYX: Voxels) -> Grey:
    """The 1st to 99.5th percentile of the whole volume as 0..255.

    >>> windowed(np.array([[[0.0, 50.0, 100.0]]], np.float32)).tolist()
    [[[0, 127, 255]]]
    """
    low, high = np.percentile(voxels_ZYX, [_LOW_PERCENTILE, _HIGH_PERCENTILE])
    span = max(float(high - low), float(np.finfo(np.float32).tiny))
    return np.asarray(np.clip((voxels_ZYX - low) * (255.0 / span), 0, 255).round(), np.uint8)


def seen_slices(slice_positions: NDArray[np.float64], slice_count: int) -> frozenset[int]:
    """Indices of the slices that a linear interpolation at these positions uses.

    >>> sorted(seen_slices(np.array([1.0, 2.5]), 10))
    [1, 2, 3]
    """
    clamped = np.clip(slice_positions, 0, slice_count - 1)
    return frozenset(int(index) for index in np.concatenate([np.floor(clamped), np.ceil(clamped)]))
