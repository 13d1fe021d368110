"""From stored pixels to a volume that lies along the patient's axes.

Values are those of PS3.3 C.11.1.1.2: stored value x slope + intercept. Enhanced MR keeps slope and intercept
in a functional group of the frame (C.7.6.16.2.9), a classic image at the top level; without either the
stored values stand. Padding (C.7.5.1.1.2) becomes 0.

The mean over directions is the geometric one: the signal falls as exp(-b ADC), so it is the average of the
exponents, and what scanners call the trace image. A voxel that is 0 or less in any direction is 0, which is
the limit of the geometric mean.
"""

import math
from collections.abc import Iterable, Iterator
from struct import unpack_from
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.utils import iter_pixels

from triage.core.elements import UNDECODABLE
from triage.core.header import DwiFrame

Plane: TypeAlias = NDArray[np.float64]

FRAME_PIXELS_MAX: Final = 2**24
"""4096 x 4096, a mosaic of 1024 tiles of 128 x 128; more is no diffusion image."""


class PixelError(Exception):
    """The pixels of an instance cannot be had; the message is fit to be shown."""


def read_planes(dataset: Dataset, frames: Iterable[DwiFrame]) -> Iterator[Plane]:
    """Each frame's values, (row, column), in the order asked for. Decodes no other frame.

    dataset: with pixels and file meta information.
    Raises PixelError when the pixels are absent, damaged, or not what the header said.
    """
    wanted = tuple(frames)
    _check_size(dataset)
    pictures: dict[int, Plane] = {}
    for frame in wanted:
        number = 0 if frame.tile_origin is not None else frame.index
        if number not in pictures:
            pictures = {number: _values(dataset, number)}
        top, left = frame.tile_origin or (0, 0)
        plane_YX = pictures[number][top : top + frame.rows, left : left + frame.columns]
        if plane_YX.shape != (frame.rows, frame.columns):
            raise PixelError(f"expected {frame.rows} x {frame.columns} pixels, got {plane_YX.shape}")
        yield plane_YX


def mean_over_directions(log_sum_ZYX: NDArray[np.float64], directions: int) -> NDArray[np.float32]:
    """The geometric mean, from the sum of `log_signal` over that many directions."""
    return np.exp(log_sum_ZYX / directions).astype(np.float32)


def log_signal(plane_YX: NDArray[np.float64]) -> NDArray[np.float64]:
    """The natural logarithm; minus infinity where there is no signal."""
    with np.errstate(divide="ignore"):
        return np.log(np.clip(plane_YX, 0, None))


def along_patient_axes(
    voxels_ZYX: NDArray[np.float32], affine_lps: NDArray[np.float64]
) -> tuple[NDArray[np.float32], Plane]:
    """The same voxels with columns ascending towards the left and rows towards posterior, as far as
    exchanging and reversing rows and columns can do it; the affine still names the same places.

    voxels_ZYX: slices caudal to cranial.
    affine_lps: (column, row, slice, 1) to LPS millimetres.
    """
    affine = affine_lps.copy()
    column, row = affine[:3, 0] / np.linalg.norm(affine[:3, 0]), affine[:3, 1] / np.linalg.norm(affine[:3, 1])
    if abs(column[1]) + abs(row[0]) > abs(column[0]) + abs(row[1]):
        voxels_ZYX = voxels_ZYX.transpose(0, 2, 1)
        affine[:, [0, 1]] = affine[:, [1, 0]]
    for axis, array_axis in ((0, 2), (1, 1)):
        if affine[axis, axis] < 0:
            voxels_ZYX = np.flip(voxels_ZYX, array_axis)
            affine[:3, 3] += affine[:3, axis] * (voxels_ZYX.shape[array_axis] - 1)
            affine[:3, axis] *= -1
    return np.ascontiguousarray(voxels_ZYX), affine


def _check_size(dataset: Dataset) -> None:
    if "PixelData" not in dataset:
        raise PixelError("an instance has no PixelData")
    try:
        rows, columns, bits = int(dataset.Rows), int(dataset.Columns), int(dataset.BitsAllocated)
        samples, frames = int(dataset.get("SamplesPerPixel") or 1), int(dataset.get("NumberOfFrames") or 1)
        is_compressed = dataset.file_meta.TransferSyntaxUID.is_compressed
        length = len(dataset.PixelData)
    except UNDECODABLE as error:
        raise PixelError("the description of the pixels is damaged") from error
    if not 0 < rows * columns <= FRAME_PIXELS_MAX:
        raise PixelError(f"{rows} x {columns} pixels make no diffusion image")
    expected = rows * columns * samples * frames * bits // 8
    # An odd number of bytes is padded by one (PS3.5 section 8.1.1).
    if not is_compressed and length not in (expected, expected + 1):
        raise PixelError(f"PixelData holds {length} bytes, expected {expected}")


def _values(dataset: Dataset, number: int) -> Plane:
    try:
        _check_codestream(dataset, number)
        stored_YX = next(iter_pixels(dataset, indices=[number], raw=True))
        slope, intercept = _rescale(dataset, number)
        padding_YX = _padding(dataset, stored_YX)
    except (*UNDECODABLE, StopIteration) as error:
        raise PixelError(f"the pixels cannot be decoded ({type(error).__name__})") from error
    if stored_YX.ndim != 2:
        raise PixelError(f"expected one grey value a pixel, got an array of shape {stored_YX.shape}")
    if not (math.isfinite(slope) and math.isfinite(intercept) and slope > 0):
        raise PixelError(f"rescale slope {slope:g} and intercept {intercept:g} make no image")
    values_YX: Plane = stored_YX.astype(np.float64) * slope + intercept
    values_YX[padding_YX] = 0
    return values_YX


def _check_codestream(dataset: Dataset, number: int) -> None:
    """Decoders ask for the memory that the codestream announces, whatever Rows and Columns say."""
    if not dataset.file_meta.TransferSyntaxUID.is_compressed:
        return
    rows, columns, frames = (int(dataset.get(name) or 1) for name in ("Rows", "Columns", "NumberOfFrames"))
    announced = _announced_size(get_frame(dataset.PixelData, number, number_of_frames=frames))
    if announced not in (None, (rows, columns)):
        raise PixelError(f"the compressed image does not hold the {rows} x {columns} pixels of the header")


START_OF_FRAME: Final = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
COMPONENTS_MAX: Final = 4


def _announced_size(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a JPEG 2000 (ISO 15444-1 A.5.1), JPEG or JPEG-LS (ISO 10918-1 B.2.2) codestream."""
    if frame.startswith(b"\xff\x4f\xff\x51"):
        right, bottom, left, top = unpack_from(">4I", frame, 8)
        is_image = unpack_from(">H", frame, 40)[0] <= COMPONENTS_MAX
        return (bottom - top, right - left) if is_image else (0, 0)
    at = 2
    while frame.startswith(b"\xff\xd8") and at + 9 <= len(frame):
        marker, length, rows, columns = unpack_from(">xBHxHH", frame, at)
        if marker in START_OF_FRAME:
            return rows, columns
        at += 2 + max(length, 2)
    return None


def _rescale(dataset: Dataset, number: int) -> tuple[float, float]:
    holder = dataset
    own = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for group in (*shared[:1], *own[number : number + 1]):
        holder = next(iter(group.get("PixelValueTransformationSequence") or [holder]))
    slope, intercept = holder.get("RescaleSlope"), holder.get("RescaleIntercept")
    return 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)


def _padding(dataset: Dataset, stored_YX: NDArray[Any]) -> NDArray[np.bool_]:
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored_YX.shape, bool)
    limit = dataset.get("PixelPaddingRangeLimit", value)
    return np.asarray((stored_YX >= min(value, limit)) & (stored_YX <= max(value, limit)))
