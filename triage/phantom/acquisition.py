"""A single-shot EPI diffusion protocol, and what it makes of a head.

Order of events, as in a scanner: the tilted, slightly different head is cut into slices with a soft
slice profile; off-resonance shifts signal along the phase direction (pile-up where it converges, voids
where it parts); k-space is truncated to the protocol's matrix, with the ghost of alternating lines, T2*
decay and complex noise; the magnitude image is zero-filled to the reconstruction matrix.
"""

from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from triage.phantom.heads import SPACING_MM, Head
from triage.phantom.texture import upsample
from triage.phantom.tissue import LAST_PARENCHYMA, Timing

Floats = npt.NDArray[np.float32]
Affine = npt.NDArray[np.float64]
Number = TypeVar("Number", bound=np.generic)

DEFORMATION_MM: Final = 2.5
SCALE_JITTER: Final = 0.05
NEGLIGIBLE: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How a study is acquired.

    fov_mm: side of the square field of view, a multiple of 3 mm (the generator's grid).
    matrix: acquired; recon_matrix: after zero-filling.
    bandwidth_hz_px: along the phase direction; phase_polarity +1 or -1 says which way it blips.
    gap_mm: between slices; slice distance is thickness plus gap.
    snr: of healthy white matter at the high b-value.
    ghost: share of signal on alternate lines.
    tilt_deg: pitch, roll, yaw of the slices against the head.
    stack_above_mm, stack_below_mm: how far the stack reaches beyond the brain; below, the next whole slice.
    """

    timing: Timing
    b_value: float
    fov_mm: float
    matrix: int
    recon_matrix: int
    slice_thickness_mm: float
    gap_mm: float
    bandwidth_hz_px: float
    phase_polarity: int
    snr: float
    ghost: float
    tilt_deg: tuple[float, float, float]
    stack_above_mm: float
    stack_below_mm: float

    def __post_init__(self) -> None:
        if self.fov_mm % (2 * SPACING_MM):
            raise ValueError(f"fov_mm {self.fov_mm}: expected a multiple of {2 * SPACING_MM}")

    @property
    def slice_distance_mm(self) -> float:
        """Centre to centre."""
        return self.slice_thickness_mm + self.gap_mm


def draw_protocol(rng: np.random.Generator) -> Protocol:
    """One site's protocol: 1.5 or 3 T, matrix 96-256, 3-6 mm slices, gap 0-2 mm, b 800-1200."""
    matrix = int(rng.choice([96, 128, 128, 128, 160, 192, 256]))
    b_value = 1000.0 if rng.random() < 0.8 else float(rng.choice([800.0, 900.0, 1100.0, 1200.0]))
    pitch, roll, yaw = (float(v) for v in rng.normal(0.0, [5.0, 2.5, 3.0]))
    return Protocol(
        timing=Timing(
            tr_ms=float(rng.uniform(4000.0, 10000.0)),
            te_ms=float(rng.uniform(65.0, 100.0)),
            field_strength_t=1.5 if rng.random() < 0.5 else 3.0,
        ),
        b_value=b_value,
        fov_mm=float(rng.choice([222.0, 231.0, 240.0, 249.0, 258.0])),
        matrix=matrix,
        recon_matrix=256 if matrix > 160 or rng.random() < 0.4 else matrix,
        slice_thickness_mm=float(rng.choice([3.0, 4.0, 4.0, 5.0, 5.0, 6.0])),
        gap_mm=float(rng.choice([0.0, 0.0, 0.5, 1.0, 1.5, 2.0])),
        bandwidth_hz_px=float(rng.uniform(12.0, 40.0)),
        phase_polarity=1 if rng.random() < 0.5 else -1,
        snr=float(rng.uniform(10.0, 35.0)),
        ghost=float(rng.uniform(0.0, 0.04)),
        tilt_deg=(pitch, roll, yaw),
        stack_above_mm=float(rng.uniform(2.0, 14.0)),
        stack_below_mm=float(rng.uniform(2.0, 14.0)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Where the slices lie, and where each fine sample of them comes from in the head.

    affine_lps: (column, row, slice, 1) of the reconstructed image to LPS mm.
    coordinates_3ZYX: head-grid indices of the fine samples, 1.5 mm apart in all directions.
    profile_SZ: weight of each fine plane in each slice.
    """

    affine_lps: Affine
    coordinates_3ZYX: Floats
    profile_SZ: Floats

    @property
    def slice_count(self) -> int:
        return int(self.profile_SZ.shape[0])


def place(rng: np.random.Generator, head: Head, protocol: Protocol) -> Frame:
    """Lay the stack over the head, and bend the head a little: size +-5 per cent, smooth warp of 2.5 mm."""
    rotation = _rotation(protocol.tilt_deg)
    scale = 1.0 + SCALE_JITTER * np.clip(rng.standard_normal(3), -2.0, 2.0)
    low, high = _brain_span(head, rotation, scale)
    length_mm = (high[2] - low[2]) + protocol.stack_above_mm + protocol.stack_below_mm
    slices = int(np.ceil(length_mm / protocol.slice_distance_mm))
    centre = (low + high) / 2.0
    centre[2] = high[2] + protocol.stack_above_mm - slices * protocol.slice_distance_mm / 2.0
    depth_mm = slices * protocol.slice_distance_mm
    extent = np.array(head.shape[::-1]) * SPACING_MM
    counts = np.ceil([min(extent[0] + 6, protocol.fov_mm), min(extent[1] + 6, protocol.fov_mm), depth_mm])
    fine_xyz = np.maximum(counts / SPACING_MM, 8).astype(int)
    return Frame(
        affine_lps=_image_affine(rotation, centre, protocol, slices),
        coordinates_3ZYX=_coordinates(rng, head, rotation, scale, centre, fine_xyz),
        profile_SZ=_slice_profile(protocol, slices, int(fine_xyz[2])),
    )


def sample(frame: Frame, values_ZYX: Floats) -> Floats:
    """A map on the head's grid, seen by each slice: (slice, fine row, fine column)."""
    fine = ndimage.map_coordinates(values_ZYX, frame.coordinates_3ZYX, order=1, mode="constant")
    planes = np.zeros((frame.slice_count, *fine.shape[1:]), np.float32)
    # Not a matrix product: its last bits would depend on the number of threads.
    for number, weights in enumerate(frame.profile_SZ):
        for z in np.flatnonzero(weights > NEGLIGIBLE):
            planes[number] += weights[z] * fine[z]
    return planes


def displace(planes_ZYX: Floats, shift_rows_ZYX: Floats) -> Floats:
    """Move signal along the rows by a shift in fine rows; nothing is lost but at the edge."""
    slices, rows, columns = planes_ZYX.shape
    position = np.arange(rows, dtype=np.float32)[None, :, None] + shift_rows_ZYX
    below = np.floor(position)
    weight = position - below
    row = below.astype(np.int32)
    base = (np.arange(slices, dtype=np.int32) * rows * columns)[:, None, None] + np.arange(
        columns, dtype=np.int32
    )
    moved = np.zeros(planes_ZYX.size, np.float64)
    for step, share in ((0, 1.0 - weight), (1, weight)):
        target = row + step
        inside = (target >= 0) & (target < rows)
        index = base + np.clip(target, 0, rows - 1) * columns
        moved += np.bincount(
            index.ravel(), weights=(planes_ZYX * share * inside).ravel(), minlength=moved.size
        )
    return np.asarray(moved.reshape(planes_ZYX.shape), np.float32)


def row_shift(protocol: Protocol, field_hz_ZYX: Floats) -> Floats:
    """Off-resonance as a shift in fine rows."""
    pixel_mm = protocol.fov_mm / protocol.matrix
    shift_mm = protocol.phase_polarity * field_hz_ZYX / protocol.bandwidth_hz_px * pixel_mm
    return np.asarray(shift_mm / SPACING_MM, np.float32)


def coil_bias(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Smooth receive sensitivity, brighter near the coil: (slice, row, column)."""
    z, y, x = (np.linspace(-1.0, 1.0, n, dtype=np.float32) for n in shape)
    slopes = rng.normal(0.0, 0.10, 3)
    bowl = rng.uniform(0.0, 0.25)
    bias = 1.0 + slopes[0] * z[:, None, None] + slopes[1] * y[None, :, None] + slopes[2] * x
    return np.asarray(bias + bowl * (y[None, :, None] ** 2 + x**2), np.float32)


def record(rng: np.random.Generator, planes_ZYX: Floats, protocol: Protocol, noise: float) -> Floats:
    """Planes on the fine grid as magnitude images: (slice, recon row, recon column).

    noise: standard deviation of each complex channel, in the planes' units.
    A matrix finer than the generator's 1.5 mm grid adds pixels, not detail.
    """
    fine = _fine_matrix(protocol)
    spectrum = fft.fftshift(fft.fft2(_resized(planes_ZYX, fine).astype(np.complex64)), axes=(1, 2))
    matrix = min(protocol.matrix, fine)
    spectrum = _resized(spectrum, matrix) * np.float32((matrix / fine) ** 2)
    spectrum = spectrum * _line_errors(matrix, protocol.ghost)[None, :, None]
    grain = rng.standard_normal((2, *spectrum.shape), dtype=np.float32) * np.float32(noise * matrix)
    spectrum = (spectrum + grain[0] + 1j * grain[1]) * _window(matrix)
    recon = protocol.recon_matrix
    filled = _resized(spectrum, recon) * np.float32((recon / matrix) ** 2)
    image = fft.ifft2(fft.ifftshift(filled, axes=(1, 2)))
    return np.asarray(np.abs(image), np.float32)


def on_image(planes_ZYX: Floats, protocol: Protocol) -> Floats:
    """Planes on the fine grid, on the reconstructed image's pixels instead, by linear interpolation."""
    weight = _pixel_weights(protocol)
    square = _resized(planes_ZYX, weight.shape[1])
    return np.asarray(weight @ square @ weight.T, np.float32)


def labels_on_image(
    labels_ZYX: npt.NDArray[np.uint8], protocol: Protocol, frame: Frame
) -> npt.NDArray[np.uint8]:
    """Labels of the head at the centre of each slice, on the reconstructed image's pixels."""
    middle = frame.profile_SZ.argmax(axis=1)
    at = frame.coordinates_3ZYX[:, middle]
    planes = ndimage.map_coordinates(labels_ZYX, at, order=0, mode="constant")
    nearest = _pixel_weights(protocol).argmax(axis=1)
    square = _resized(planes, _fine_matrix(protocol))
    return np.asarray(square[:, nearest[:, None], nearest[None, :]], np.uint8)


def _fine_matrix(protocol: Protocol) -> int:
    return round(protocol.fov_mm / SPACING_MM)


def _pixel_weights(protocol: Protocol) -> Floats:
    fine, recon = _fine_matrix(protocol), protocol.recon_matrix
    position = fine // 2 + (np.arange(recon) - recon // 2) * fine / recon
    away = np.abs(position[:, None] - np.arange(fine)[None, :])
    return np.asarray(np.clip(1.0 - away, 0.0, 1.0), np.float32)


def _line_errors(matrix: int, ghost: float) -> npt.NDArray[np.complex64]:
    line = np.arange(matrix)
    alternate = np.where(line % 2 == 0, 1.0, -1.0) * ghost
    decay = np.exp(-0.5 * np.abs(line - matrix // 2) / matrix)
    return np.asarray(np.exp(1j * alternate) * decay, np.complex64)


def _window(matrix: int) -> Floats:
    """Mild Fermi window, as vendors use."""
    axis = np.arange(matrix) - matrix // 2
    radius = np.hypot(axis[:, None], axis[None, :])
    return np.asarray(1.0 / (1.0 + np.exp((radius - 0.49 * matrix) / 2.0)), np.float32)


def _resized(planes: npt.NDArray[Number], size: int) -> npt.NDArray[Number]:
    """Cut or zero-pad the last two axes to size, keeping the centre sample in the centre."""
    resized = np.zeros((planes.shape[0], size, size), planes.dtype)
    to_rows, from_rows = _overlap(planes.shape[1], size)
    to_columns, from_columns = _overlap(planes.shape[2], size)
    resized[:, to_rows, to_columns] = planes[:, from_rows, from_columns]
    return resized


def _overlap(have: int, want: int) -> tuple[slice, slice]:
    shared = min(have, want)
    to, source = want // 2 - shared // 2, have // 2 - shared // 2
    return slice(to, to + shared), slice(source, source + shared)


def _rotation(tilt_deg: tuple[float, float, float]) -> Affine:
    """Columns are the LPS directions of the image's column, row and slice axes."""
    (cp, cr, cy), (sp, sr, sy) = np.cos(np.deg2rad(tilt_deg)), np.sin(np.deg2rad(tilt_deg))
    pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    roll = np.array([[cr, 0, sr], [0, 1, 0], [-sr, 0, cr]])
    yaw = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return np.asarray(yaw @ roll @ pitch, np.float64)


def _brain_span(head: Head, rotation: Affine, scale: Affine) -> tuple[Affine, Affine]:
    """Lowest and highest coordinates of the brain along the image axes, in mm."""
    brain = head.fraction_KZYX[: LAST_PARENCHYMA + 1, ::4, ::4, ::4].max(axis=0) > 127
    index_xyz = np.argwhere(brain)[:, ::-1] * 4.0
    points = (np.array(head.origin_lps_mm) + index_xyz * SPACING_MM) * scale
    along = points @ rotation
    return along.min(axis=0), along.max(axis=0)


def _image_affine(rotation: Affine, centre: Affine, protocol: Protocol, slices: int) -> Affine:
    pixel_mm = protocol.fov_mm / protocol.recon_matrix
    steps = np.array([pixel_mm, pixel_mm, protocol.slice_distance_mm])
    middle = np.array([protocol.recon_matrix // 2, protocol.recon_matrix // 2, (slices - 1) / 2.0])
    affine = np.eye(4)
    affine[:3, :3] = rotation * steps
    affine[:3, 3] = rotation @ (centre - middle * steps)
    return affine


def _coordinates(
    rng: np.random.Generator,
    head: Head,
    rotation: Affine,
    scale: Affine,
    centre: Affine,
    fine_xyz: npt.NDArray[np.int_],
) -> Floats:
    nx, ny, nz = (int(n) for n in fine_xyz)
    # Middle sample of an n-point axis is n // 2, as in the Fourier transform of the image.
    u = (np.arange(nx, dtype=np.float32) - nx // 2) * SPACING_MM + np.float32(centre[0])
    v = (np.arange(ny, dtype=np.float32) - ny // 2) * SPACING_MM + np.float32(centre[1])
    w = (np.arange(nz, dtype=np.float32) - (nz - 1) / 2.0) * SPACING_MM + np.float32(centre[2])
    to_index = (rotation / scale[:, None]).astype(np.float32) / np.float32(SPACING_MM)
    coordinates = np.empty((3, nz, ny, nx), np.float32)
    for axis_zyx, axis_xyz in ((0, 2), (1, 1), (2, 0)):
        row = to_index[axis_xyz]
        coordinates[axis_zyx] = row[0] * u + (row[1] * v)[:, None] + (row[2] * w)[:, None, None]
        coordinates[axis_zyx] -= np.float32(head.origin_lps_mm[axis_xyz] / SPACING_MM)
        coordinates[axis_zyx] += _warp(rng, (nz, ny, nx))
    return coordinates


def _warp(rng: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
    control = rng.normal(0.0, DEFORMATION_MM / SPACING_MM, (6, 6, 6))
    smooth = ndimage.zoom(control, 4, order=3).astype(np.float32)
    return upsample(smooth, shape)


def _slice_profile(protocol: Protocol, slices: int, fine: int) -> Floats:
    """Rows sum to one: a box of the slice's thickness with soft shoulders."""
    position = (np.arange(fine) - (fine - 1) / 2.0) * SPACING_MM
    centre = (np.arange(slices) - (slices - 1) / 2.0) * protocol.slice_distance_mm
    away = np.abs(position[None, :] - centre[:, None])
    weight = 1.0 / (1.0 + np.exp((away - protocol.slice_thickness_mm / 2.0) / 0.4))
    return np.asarray(weight / weight.sum(axis=1, keepdims=True), np.float32)
