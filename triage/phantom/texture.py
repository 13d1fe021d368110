"""Smooth random fields: the one source of natural-looking variation."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]
Shape = tuple[int, int, int]


def random_field(rng: np.random.Generator, shape: Shape, scale_voxels: float) -> Floats:
    """Zero-mean, unit-variance field that varies over about scale_voxels.

    shape: (Z, Y, X).
    """
    coarse_step = max(1.0, scale_voxels / 2.0)
    coarse_shape = [int(np.ceil(n / coarse_step)) + 4 for n in shape]
    coarse = ndimage.gaussian_filter(rng.standard_normal(coarse_shape).astype(np.float32), 1.0)
    field = upsample(coarse, shape)
    return np.asarray((field - field.mean()) / field.std(), np.float32)


def upsample(coarse_ZYX: Floats, shape: Shape) -> Floats:
    """The same field on a finer grid, by linear interpolation from edge to edge."""
    fine: Floats = coarse_ZYX
    for axis, n in enumerate(shape):
        fine = _stretch(fine, axis, n)
    return fine


def _stretch(values: Floats, axis: int, n: int) -> Floats:
    position = np.linspace(0.0, values.shape[axis] - 1.0, n, dtype=np.float32)
    below = np.minimum(position.astype(np.intp), values.shape[axis] - 2)
    weight_shape = [1, 1, 1]
    weight_shape[axis] = n
    weight = (position - below).reshape(weight_shape).astype(np.float32)
    low = values.take(below, axis=axis)
    high = values.take(below + 1, axis=axis)
    return np.asarray(low + weight * (high - low), np.float32)
