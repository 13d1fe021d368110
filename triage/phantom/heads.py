"""Heads to draw studies in: what tissue, region and field each voxel has, before any stroke.

Every array lies on one isotropic grid whose axes point along LPS: Z caudal to cranial, Y anterior to
posterior, X patient right to left.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from triage.phantom.susceptibility import field_map
from triage.phantom.texture import upsample
from triage.phantom.tissue import AIR, LAST_PARENCHYMA, Tissue

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

SPACING_MM: Final = 1.5
ANTERIOR_CEREBRAL: Final = 1
POSTERIOR_CEREBRAL: Final = 2
POSTERIOR_FOSSA: Final = 3
CATCHMENT_MM: Final = 6.0
PACKAGED: Final = "mni152"

# FreeSurfer numbers inside the brain, the label maps' own numbers outside it.
_LABELS: Final[dict[Tissue, tuple[int, ...]]] = {
    Tissue.WHITE_MATTER: (2, 41, 30, 62, 25, 57, 72, 85),
    Tissue.CORTEX: (3, 42, 17, 53, 18, 54),
    Tissue.CAUDATE: (11, 50, 26, 58, 136, 137, 163, 164),
    Tissue.PUTAMEN: (12, 51),
    Tissue.PALLIDUM: (13, 52),
    Tissue.THALAMUS: (10, 49),
    Tissue.CEREBELLAR_CORTEX: (8, 47),
    Tissue.CEREBELLAR_WHITE: (7, 46),
    Tissue.BRAINSTEM: (16, 28, 60),
    Tissue.CSF: (4, 5, 14, 15, 24, 43, 44),
    Tissue.MUSCLE: (507,),
    Tissue.FAT: (516,),
    Tissue.EYE: (509, 512),
    Tissue.BONE: (511, 514, 515, 530),
    Tissue.MUCOSA: (502, 506, 508),
}
_VENTRICLE_LABELS: Final = (4, 43)
_ANTERIOR_TERRITORIES: Final = (1, 2)
_POSTERIOR_TERRITORIES: Final = tuple(range(17, 23))


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One head.

    origin_lps_mm: centre of voxel (0, 0, 0) as (x, y, z).
    fraction_KZYX: share of the voxel each Tissue fills, 0..255; the rest is air.
    region_ZYX: 1..10 left, 11..20 right, in the order of REGIONS; 0 elsewhere.
    catchment_ZYX: the same numbers, grown 6 mm into the tissue that no region claims.
    territory_ZYX: brain outside the middle cerebral artery; one of the three constants above, or 0.
    ventricle_distance_mm_ZYX: to the lateral ventricles.
    field_hz_per_t_ZYX: off-resonance after shimming.
    """

    name: str
    origin_lps_mm: tuple[float, float, float]
    fraction_KZYX: Bytes
    region_ZYX: Bytes
    catchment_ZYX: Bytes
    territory_ZYX: Bytes
    ventricle_distance_mm_ZYX: Floats
    field_hz_per_t_ZYX: Floats

    @property
    def shape(self) -> tuple[int, int, int]:
        z, y, x = self.region_ZYX.shape
        return z, y, x


def load_head(number: int, folder: Path, cache: Path | None = None) -> Head:
    """The head `seg_NN` with its `regions_NN` and `territories_NN`, brought to the 1.5 mm grid.

    folder: holds 1 mm NIfTI label maps.
    cache: a folder in which the prepared head is kept for next time.
    Raises FileNotFoundError when the folder has no such head.
    """
    name = f"seg_{number:02d}"
    if cache is None:
        return _prepare_seg(number, folder)
    path = cache / f"{name}.npz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _save(_prepare_seg(number, folder), path)
    return _load(path)


@lru_cache(maxsize=1)
def packaged_head() -> Head:
    """The head that ships with the project: the MNI152 average (see mni152.py), kept out of training."""
    with as_file(files("triage.phantom") / "packaged" / "mni152.npz") as path, np.load(path) as saved:
        labels, region = saved["tissue_ZYX"], saved["region_ZYX"]
        territory, ventricle = saved["territory_ZYX"], saved["ventricle_ZYX"].astype(bool)
        origin = saved["origin_lps_mm"]
    fraction = np.stack([_soft_share(labels == tissue) for tissue in Tissue])
    return assemble_head(
        name=PACKAGED, origin_lps_mm=origin, fraction=fraction, region=region, territory=territory,
        ventricle=ventricle, field_of=_coarse_field,
    )  # fmt: skip


def assemble_head(
    *,
    name: str,
    origin_lps_mm: npt.NDArray[np.float64],
    fraction: Bytes,
    region: Bytes,
    territory: Bytes,
    ventricle: Bools,
    field_of: Callable[[Bytes], Floats],
) -> Head:
    """A head with everything worked out that depends on the head alone.

    Arrays as in Head; ventricle marks the lateral ventricles.
    """
    x, y, z = (float(value) for value in origin_lps_mm)
    distance = ndimage.distance_transform_edt(~ventricle, sampling=SPACING_MM)
    return Head(
        name=name,
        origin_lps_mm=(x, y, z),
        fraction_KZYX=fraction,
        region_ZYX=region,
        catchment_ZYX=_catchments(region, fraction, territory),
        territory_ZYX=territory,
        ventricle_distance_mm_ZYX=np.asarray(distance, np.float32),
        field_hz_per_t_ZYX=field_of(fraction),
    )


def _soft_share(inside: Bools) -> Bytes:
    soft = ndimage.gaussian_filter(inside.astype(np.float32), 0.45)
    return np.asarray(np.rint(soft * 255.0), np.uint8)


def _catchments(region: Bytes, fraction: Bytes, territory: Bytes) -> Bytes:
    """Grow regions into unclaimed white matter and cortex of the same side."""
    open_tissue = fraction[: Tissue.CORTEX + 1].max(axis=0) > 127
    open_tissue &= (territory == 0) & (region == 0)
    distance, nearest = ndimage.distance_transform_edt(region == 0, sampling=SPACING_MM, return_indices=True)
    grown = region[tuple(nearest)]
    return np.asarray(np.where(open_tissue & (distance <= CATCHMENT_MM), grown, region), np.uint8)


def _coarse_field(fraction: Bytes) -> Floats:
    """Field from the fraction map itself; nothing outside the grid but air."""
    half = fraction[:, : -1 if fraction.shape[1] % 2 else None]
    air = 1.0 - half.sum(axis=0, dtype=np.float32) / 255.0
    bone = half[Tissue.BONE] / np.float32(255.0)
    brain = half[: LAST_PARENCHYMA + 1].sum(axis=0, dtype=np.float32) / 255.0
    coarse = [_halve(np.asarray(share, np.float32)) for share in (air, bone, brain)]
    z, y, x = fraction.shape[1:]
    return upsample(field_map(*coarse), (z, y, x))


def _halve(values: Floats) -> Floats:
    z, y, x = (n // 2 * 2 for n in values.shape)
    blocks = values[:z, :y, :x].reshape(z // 2, 2, y // 2, 2, x // 2, 2)
    return np.asarray(blocks.mean(axis=(1, 3, 5)), np.float32)


def _prepare_seg(number: int, folder: Path) -> Head:
    labels, origin = read_lps(folder / f"seg_{number:02d}.nii.gz")
    region, _ = read_lps(folder / f"regions_{number:02d}.nii.gz")
    arteries, _ = read_lps(folder / f"territories_{number:02d}.nii.gz")
    window = head_window(_to_tissue(labels))
    tissue = _to_tissue(labels)[window]
    whole_field = _whole_head_field(_to_tissue(labels))
    field_at = tuple(slice(w.start // 3, w.stop // 3) for w in window)
    fraction = np.stack([to_three_halves(tissue == kind) for kind in Tissue])
    shape = fraction.shape[1:]
    starts_xyz = np.array([w.start for w in reversed(window)])
    return assemble_head(
        name=f"seg_{number:02d}",
        origin_lps_mm=origin + starts_xyz + 0.25,
        fraction=fraction,
        region=nearest_three_halves(region[window].astype(np.uint8)),
        territory=nearest_three_halves(_territories(labels[window], arteries[window], region[window])),
        ventricle=nearest_three_halves(np.isin(labels[window], _VENTRICLE_LABELS).astype(np.uint8)) > 0,
        field_of=lambda _: upsample(whole_field[field_at], (shape[0], shape[1], shape[2])),
    )


def read_lps(path: Path) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float64]]:
    """Integer volume with axes (Z, Y, X) ascending along LPS, and the LPS position of voxel 0."""
    import nibabel  # only heads in NIfTI need it; the packaged head does not

    image = nibabel.as_closest_canonical(nibabel.load(path))  # type: ignore[no-untyped-call]
    ras_XYZ = np.rint(np.asanyarray(image.dataobj)).astype(np.int16)
    last_x, last_y = ras_XYZ.shape[0] - 1, ras_XYZ.shape[1] - 1
    corner_ras = image.affine @ np.array([last_x, last_y, 0.0, 1.0])
    lps_ZYX = np.ascontiguousarray(ras_XYZ[::-1, ::-1].transpose(2, 1, 0))
    return lps_ZYX, np.array([-corner_ras[0], -corner_ras[1], corner_ras[2]])


def _to_tissue(labels: npt.NDArray[np.int16]) -> Bytes:
    table = np.full(1024, AIR, np.uint8)
    for tissue, numbers in _LABELS.items():
        table[list(numbers)] = tissue
    return table[labels]


def head_window(tissue: Bytes) -> tuple[slice, slice, slice]:
    """Box around the head, from 15 mm under the brain upwards, on multiples of six voxels."""
    brain_z = np.flatnonzero((tissue <= LAST_PARENCHYMA).any(axis=(1, 2)))
    bottom = max(int(brain_z[0]) - 15, 0)
    head = tissue[bottom : int(brain_z[-1]) + 12] != AIR
    spans = [(bottom, bottom + head.shape[0])]
    for axis in (1, 2):
        filled = np.flatnonzero(head.any(axis=tuple(a for a in range(3) if a != axis)))
        spans.append((int(filled[0]) - 3, int(filled[-1]) + 4))
    z, y, x = (_on_sixes(start, stop, n) for (start, stop), n in zip(spans, tissue.shape, strict=True))
    return z, y, x


def _on_sixes(start: int, stop: int, limit: int) -> slice:
    start = max(start, 0) // 6 * 6
    return slice(start, min(start + -(-(stop - start) // 6) * 6, limit // 6 * 6))


def to_three_halves(inside: Bools) -> Bytes:
    """Share of each 1.5 mm voxel that is inside, 0..255, from 1 mm voxels; all sides multiples of 3."""
    share = inside.astype(np.float32) * 255.0
    for axis in range(3):
        first, middle, last = (share.take(range(k, share.shape[axis], 3), axis=axis) for k in range(3))
        pair = np.stack([(2 * first + middle) / 3, (middle + 2 * last) / 3], axis=axis + 1)
        share = pair.reshape(*share.shape[:axis], -1, *share.shape[axis + 1 :])
    return np.asarray(np.rint(share), np.uint8)


def nearest_three_halves(values: Bytes) -> Bytes:
    for axis in range(3):
        keep = np.flatnonzero(np.arange(values.shape[axis]) % 3 != 1)
        values = values.take(keep, axis=axis)
    return values


def _territories(
    labels: npt.NDArray[np.int16], arteries: npt.NDArray[np.int16], region: npt.NDArray[np.int16]
) -> Bytes:
    tissue = _to_tissue(labels)
    cerebrum = (tissue <= Tissue.THALAMUS) & (region == 0)
    territory = np.zeros(labels.shape, np.uint8)
    territory[cerebrum & np.isin(arteries, _ANTERIOR_TERRITORIES)] = ANTERIOR_CEREBRAL
    territory[cerebrum & np.isin(arteries, _POSTERIOR_TERRITORIES)] = POSTERIOR_CEREBRAL
    territory[(tissue >= Tissue.CEREBELLAR_CORTEX) & (tissue <= LAST_PARENCHYMA)] = POSTERIOR_FOSSA
    return territory


def _whole_head_field(tissue: Bytes) -> Floats:
    """Field on a 3 mm grid over the whole map, sinuses and neck included."""
    z, y, x = (n // 3 for n in tissue.shape)

    def share(inside: Bools) -> Floats:
        blocks = inside[: z * 3, : y * 3, : x * 3].reshape(z, 3, y, 3, x, 3)
        return np.asarray(blocks.mean(axis=(1, 3, 5)), np.float32)

    return field_map(share(tissue == AIR), share(tissue == Tissue.BONE), share(tissue <= LAST_PARENCHYMA))


def _save(head: Head, path: Path) -> None:
    partial = path.with_suffix(".partial.npz")
    np.savez(
        partial,
        name=head.name,
        origin_lps_mm=head.origin_lps_mm,
        fraction_KZYX=head.fraction_KZYX,
        region_ZYX=head.region_ZYX,
        catchment_ZYX=head.catchment_ZYX,
        territory_ZYX=head.territory_ZYX,
        ventricle_distance_mm_ZYX=head.ventricle_distance_mm_ZYX,
        field_hz_per_t_ZYX=head.field_hz_per_t_ZYX,
    )
    partial.rename(path)


def _load(path: Path) -> Head:
    with np.load(path) as saved:
        x, y, z = (float(value) for value in saved["origin_lps_mm"])
        return Head(
            name=str(saved["name"]),
            origin_lps_mm=(x, y, z),
            fraction_KZYX=saved["fraction_KZYX"],
            region_ZYX=saved["region_ZYX"],
            catchment_ZYX=saved["catchment_ZYX"],
            territory_ZYX=saved["territory_ZYX"],
            ventricle_distance_mm_ZYX=saved["ventricle_distance_mm_ZYX"],
            field_hz_per_t_ZYX=saved["field_hz_per_t_ZYX"],
        )
