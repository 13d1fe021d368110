"""Derive the packaged head from the ICBM 152 average brain. Not needed at run time.

    python -m triage.phantom.mni152 FOLDER

FOLDER holds mni_icbm152_{gm,wm,t1}_tal_nlin_sym_09a_converted.nii.gz, as the nilearn package ships them.
Grey and white matter and fluid come from the maps. Nuclei, ASPECTS regions and arterial territories are
placed by MNI coordinates; skull and scalp are shells around the brain; eyes, sinuses and mastoids are
ellipsoids. Anatomy enough to test and to demonstrate, not to train on.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from triage.phantom.heads import (
    ANTERIOR_CEREBRAL,
    POSTERIOR_CEREBRAL,
    POSTERIOR_FOSSA,
    head_window,
    nearest_three_halves,
    read_lps,
    to_three_halves,
)
from triage.phantom.tissue import AIR, LAST_PARENCHYMA, Tissue

Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

PADDING: Final = ((30, 15), (17, 18), (17, 18))


@dataclass(frozen=True, slots=True, kw_only=True)
class Average:
    """The average brain on a padded 1 mm grid with LPS axes.

    side: +1 left, -1 right of the midline; x is the distance from it; y is positive towards the face
    (as MNI has it), z towards the vertex; all in MNI millimetres.
    """

    grey_ZYX: Bytes
    white_ZYX: Bytes
    brain_ZYX: Bools
    origin_lps_mm: npt.NDArray[np.float64]
    side: Floats
    x: Floats
    y: Floats
    z: Floats

    def ellipsoid(self, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Bools:
        """Both mirror images of an ellipsoid; centre is (distance from the midline, y, z)."""
        dx, dy, dz = (
            (self.x - centre[0]) / radii[0],
            (self.y - centre[1]) / radii[1],
            (self.z - centre[2]) / radii[2],
        )
        return np.asarray(dx * dx + dy * dy + dz * dz <= 1.0)


def build(folder: Path, out: Path) -> None:
    """Write the packaged head."""
    average = read_average(folder)
    tissue = label_tissue(average)
    window = head_window(tissue)
    ventricle = lateral_ventricles(average, tissue)
    region = label_regions(average, tissue)
    territory = label_territories(average, tissue, region)
    fractions = [to_three_halves(tissue[window] == kind) for kind in (*Tissue, AIR)]
    kinds = np.array([*Tissue, AIR], np.uint8)
    np.savez_compressed(
        out,
        tissue_ZYX=kinds[np.argmax(np.stack(fractions), axis=0)],
        region_ZYX=nearest_three_halves(region[window]),
        territory_ZYX=nearest_three_halves(territory[window]),
        ventricle_ZYX=nearest_three_halves(ventricle[window].astype(np.uint8)),
        origin_lps_mm=average.origin_lps_mm + [part.start + 0.25 for part in reversed(window)],
    )


def read_average(folder: Path) -> Average:
    """Pad to a multiple of six voxels a side, with room for skull and scalp."""
    name = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
    grey, origin = read_lps(folder / name.format("gm"))
    white, _ = read_lps(folder / name.format("wm"))
    t1, _ = read_lps(folder / name.format("t1"))
    padding = [(low, high + -(n + low + high) % 6) for (low, high), n in zip(PADDING, t1.shape, strict=True)]
    origin = origin - np.array([padding[2][0], padding[1][0], padding[0][0]])
    brain = ndimage.binary_fill_holes(np.pad(t1 > 0, padding))
    z, y, x = (np.arange(n, dtype=np.float32) for n in brain.shape)
    left = (x + np.float32(origin[0]))[None, None, :]
    return Average(
        grey_ZYX=np.pad(grey, padding).astype(np.uint8),
        white_ZYX=np.pad(white, padding).astype(np.uint8),
        brain_ZYX=np.asarray(brain),
        origin_lps_mm=origin,
        side=np.sign(left),
        x=np.abs(left),
        y=-(y + np.float32(origin[1]))[None, :, None],
        z=(z + np.float32(origin[2]))[:, None, None],
    )


def label_tissue(average: Average) -> Bytes:
    """One Tissue a voxel, or AIR."""
    tissue = _shells(average)
    tissue[average.brain_ZYX] = Tissue.CSF
    grey = average.brain_ZYX & (average.grey_ZYX > 90) & (average.grey_ZYX >= average.white_ZYX)
    white = average.brain_ZYX & (average.white_ZYX > 90) & ~grey
    matter = grey | white
    tissue[grey] = Tissue.CORTEX
    tissue[white] = Tissue.WHITE_MATTER
    for kind, where in _nuclei(average, matter, grey):
        tissue[where] = kind
    below_tentorium = (average.y < -34) & (average.z < -11 - 0.22 * average.x)
    tissue[below_tentorium & grey] = Tissue.CEREBELLAR_CORTEX
    tissue[below_tentorium & white] = Tissue.CEREBELLAR_WHITE
    stem = average.ellipsoid((0, -28, -36), (17, 17, 30)) & (average.z < -8)
    tissue[stem & matter] = Tissue.BRAINSTEM
    return tissue


def lateral_ventricles(average: Average, tissue: Bytes) -> Bools:
    """Fluid deep in the brain."""
    deep = ndimage.binary_erosion(average.brain_ZYX, iterations=22)
    box = (average.x < 32) & (average.y > -55) & (average.y < 38) & (average.z > 0) & (average.z < 34)
    return np.asarray((tissue == Tissue.CSF) & deep & box)


def label_regions(average: Average, tissue: Bytes) -> Bytes:
    """The ten ASPECTS regions, 1..10 left and 11..20 right."""
    x, y, z = average.x, average.y, average.z
    lentiform = (tissue == Tissue.PUTAMEN) | (tissue == Tissue.PALLIDUM)
    medial = (tissue == Tissue.CAUDATE) | (tissue == Tissue.THALAMUS)
    from_lentiform = ndimage.distance_transform_edt(~lentiform)
    from_medial = ndimage.distance_transform_edt(~medial)
    white, cortex = tissue == Tissue.WHITE_MATTER, tissue == Tissue.CORTEX
    capsule = white & (from_lentiform < 6.5) & (from_medial < 6.5) & (z > -4) & (z < 22)
    insula = (
        cortex & (x > 26) & (x < 45) & (y > -26) & (y < 26) & (z > -14) & (z < 19) & (from_lentiform < 14)
    )
    supplied = (white | cortex) & ~capsule & ~insula & (from_lentiform > 3) & (y > -74)
    ganglionic = (z > -30) & (z <= 20) & ((z > -14) | (x > 32))
    above = (z > 20) & (z < 58)
    front, middle, back = (y > 8) & (x > 23), (y <= 8) & (y > -22) & (x > 31), (y <= -22) & (x > 28)
    region = np.zeros(tissue.shape, np.uint8)
    for number, where in enumerate(
        (tissue == Tissue.CAUDATE, lentiform, capsule, insula,
         supplied & ganglionic & front, supplied & ganglionic & middle,
         supplied & ganglionic & back & (z > -10),
         supplied & above & front, supplied & above & middle, supplied & above & back),
        start=1,
    ):  # fmt: skip
        region[where] = number
    on_right = np.broadcast_to(average.side < 0, tissue.shape)
    return np.asarray(region + np.where((region > 0) & on_right, 10, 0), np.uint8)


def label_territories(average: Average, tissue: Bytes, region: Bytes) -> Bytes:
    """Brain that the middle cerebral artery does not feed."""
    x, y, z = average.x, average.y, average.z
    cerebrum = ((tissue == Tissue.WHITE_MATTER) | (tissue == Tissue.CORTEX)) & (region == 0)
    territory = np.zeros(tissue.shape, np.uint8)
    territory[cerebrum & (x < 17) & (y > -40) & ((z > 4) | (y > 22))] = ANTERIOR_CEREBRAL
    posterior = ((y < -58) & (x < 28) & (z < 35)) | ((y < -30) & (z < -6) & (x < 36))
    territory[cerebrum & posterior] = POSTERIOR_CEREBRAL
    territory[(tissue >= Tissue.CEREBELLAR_CORTEX) & (tissue <= LAST_PARENCHYMA)] = POSTERIOR_FOSSA
    return territory


def _nuclei(average: Average, matter: Bools, grey: Bools) -> list[tuple[Tissue, Bools]]:
    head = average.ellipsoid((12, 14, 7), (5.5, 9, 9))
    body = average.ellipsoid((16.5, -5, 20), (4, 15, 5.5))
    return [
        (Tissue.THALAMUS, average.ellipsoid((11, -18, 7), (9.5, 14, 9)) & matter),
        (Tissue.CAUDATE, (head | body) & grey),
        (Tissue.PUTAMEN, average.ellipsoid((26, 3, 1), (6, 16, 10.5)) & matter),
        (Tissue.PALLIDUM, average.ellipsoid((18.5, -4, -1), (4, 9, 6)) & matter),
    ]


def _shells(average: Average) -> Bytes:
    """Fluid, skull, scalp, a rough face with eyes and air cavities, and air."""
    tissue = np.full(average.brain_ZYX.shape, AIR, np.uint8)
    distance = ndimage.distance_transform_edt(~average.brain_ZYX)
    face = average.ellipsoid((0, 25, -62), (56, 66, 46))
    tissue[face] = Tissue.MUSCLE
    tissue[distance < 14] = Tissue.MUSCLE
    tissue[distance < 11] = Tissue.FAT
    tissue[distance < 8] = Tissue.BONE
    tissue[average.ellipsoid((32, 62, -38), (12, 12, 12))] = Tissue.EYE
    for centre, radii in (
        ((0, 80, -8), (14, 5, 11)),
        ((0, 50, -46), (11, 22, 12)),
        ((0, 12, -44), (13, 12, 9)),
        ((52, -38, -44), (9, 12, 14)),
    ):
        tissue[average.ellipsoid(centre, radii)] = AIR
    tissue[distance < 2.5] = Tissue.CSF
    return tissue


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(__file__).parent / "packaged" / "mni152.npz")
