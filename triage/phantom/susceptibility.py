"""The magnetic field that air and bone in a head make, after shimming.

The air/tissue difference is 9.4 ppm. In Fourier space the field of a susceptibility map chi is
(1/3 - kz^2/k^2) chi for a main field along z. A second-order polynomial fitted over the brain stands
for the shim.
"""

import numpy as np
import numpy.typing as npt
from scipy import fft

Floats = npt.NDArray[np.float32]
GAMMA_HZ_PER_T = 42.577e6
AIR_PPM = 9.4
BONE_PPM = -2.0
PAD = 24


def field_map(air_ZYX: Floats, bone_ZYX: Floats, brain_ZYX: Floats) -> Floats:
    """Off-resonance in Hz per tesla of main field, on the grid of the fraction maps given.

    air_ZYX, bone_ZYX, brain_ZYX: fraction of each voxel, 0..1, isotropic voxels, Z along the main field.
    """
    chi = air_ZYX * AIR_PPM * 1e-6 + bone_ZYX * BONE_PPM * 1e-6
    field = _dipole(np.asarray(chi, np.float32)) * GAMMA_HZ_PER_T
    field[air_ZYX > 0.5] = 0.0
    return np.asarray(field - _shim(field, brain_ZYX > 0.9), np.float32)


def _dipole(chi: Floats) -> Floats:
    padded = np.pad(chi, PAD, mode="edge")
    kz, ky, kx = np.meshgrid(*[fft.fftfreq(n) for n in padded.shape], indexing="ij", sparse=True)
    k_squared = kz**2 + ky**2 + kx**2
    k_squared[0, 0, 0] = 1.0
    kernel = 1.0 / 3.0 - kz**2 / k_squared
    kernel[0, 0, 0] = 0.0
    field = np.real(fft.ifftn(fft.fftn(padded) * kernel))
    return np.asarray(field[PAD:-PAD, PAD:-PAD, PAD:-PAD], np.float32)


def _shim(field: Floats, brain: npt.NDArray[np.bool_]) -> Floats:
    axes = [np.linspace(-1.0, 1.0, n) for n in field.shape]
    z, y, x = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    terms = np.stack([np.ones_like(z), z, y, x, z * z, y * y, x * x, z * y, y * x, z * x], axis=1)
    inside = brain.ravel()
    weights = np.linalg.lstsq(terms[inside], field.ravel()[inside], rcond=None)[0]
    return np.asarray((terms @ weights).reshape(field.shape), np.float32)
