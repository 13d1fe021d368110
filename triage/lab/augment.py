"""What may change about a study without changing its ASPECTS.

The paper's four (horizontal flip, Gaussian noise, +15 and -15 degrees) as random amounts, and a little
shift, zoom, brightness and contrast. Shape, angle and pixel count are one resampling.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

ANGLE_DEG = 15.0
ZOOM = 0.08
SHIFT = 0.05
NOISE = 8.0


def augment(x_NZYX: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Each study changed in its own way, all its slices alike: (N, Z, size, size), 0..255."""
    moved = moved_about(x_NZYX, size, generator)
    n = moved.shape[0]
    gain = 1.0 + 0.3 * _centred(n, generator)
    offset = 20.0 * _centred(n, generator)
    noise = (
        torch.randn(moved.shape, generator=generator) * NOISE * _uniform(n, generator)[:, None, None, None]
    )
    brightness = moved * gain[:, None, None, None] + offset[:, None, None, None]
    # Air is exactly 0 after the contrast stretch and stays so.
    return torch.where(moved > 0.5, brightness + noise, moved).clamp(0.0, 255.0)


def moved_about(x_NZYX: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Random flip, rotation, zoom and shift, resampled to size x size."""
    n = x_NZYX.shape[0]
    angle = math.radians(ANGLE_DEG) * 2.0 * _centred(n, generator)
    zoom = 1.0 + 2.0 * ZOOM * _centred(n, generator)
    flip = torch.where(_uniform(n, generator) < 0.5, -1.0, 1.0)
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0] = torch.cos(angle) * zoom * flip
    matrix[:, 0, 1] = -torch.sin(angle) * zoom
    matrix[:, 1, 0] = torch.sin(angle) * zoom * flip
    matrix[:, 1, 1] = torch.cos(angle) * zoom
    matrix[:, 0, 2] = 2.0 * SHIFT * _centred(n, generator)
    matrix[:, 1, 2] = 2.0 * SHIFT * _centred(n, generator)
    return _resample(x_NZYX, matrix, size)


def shrink(x_NZYX: Tensor, size: int) -> Tensor:
    """The study on size x size pixels, unchanged when it has them already."""
    if x_NZYX.shape[-1] == size:
        return x_NZYX
    upright = torch.eye(2, 3).expand(x_NZYX.shape[0], 2, 3)
    return _resample(x_NZYX, upright, size)


def _resample(x_NZYX: Tensor, matrix_N23: Tensor, size: int) -> Tensor:
    n, z = x_NZYX.shape[:2]
    grid = functional.affine_grid(matrix_N23, [n, z, size, size], align_corners=False)
    return functional.grid_sample(x_NZYX, grid, mode="bilinear", align_corners=False)


def _uniform(n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator)


def _centred(n: int, generator: torch.Generator) -> Tensor:
    """-0.5..0.5."""
    return _uniform(n, generator) - 0.5
