"""Every real series beside dcm2niix: volumes, b-values, shape, spacing, affine, voxels."""

import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.conftest import unavailable
from triage.core.diffusion import FrameKind, InstanceHeader, read_header
from triage.core.volume import DwiVolume, NotDiffusion, Rejection, VolumeKind, VolumePlan, assemble, choose

# Case and series number -> why we differ. What is not here must be equal.
EXPLAINED = {
    ("negative-ge-fmri", 2): "functional MRI: no b-value, not ours",
    ("siemens-xa30-enhanced-derived", 11): "ADC: a computed map, not ours",
    ("siemens-xa30-enhanced-derived", 12): "b=2500 trace: it writes no b-values of derived images",
    ("siemens-xa30-enhanced-derived", 13): "FA: a computed map, not ours",
    ("siemens-xa30-enhanced-derived", 14): "colour FA: a computed map, not ours",
    ("siemens-xa30-enhanced-derived", 16): "b=0 of the tensor: it writes no b-values of derived images",
    ("philips-achieva-2008-classic", 1201): "it writes all volumes a second time, with the trace, as _ADC",
    ("mixed-philips-nonimage", 0): "no image",
    ("mixed-philips-nonimage", 701): "no image",
}
CASES = [
    "canon-v60-classic",
    "canon-v61-enhanced",
    "ge-mr29-pioneer",
    "mixed-philips-nonimage",
    "negative-ge-fmri",
    "philips-achieva-2008-classic",
    "philips-enhanced-achieva",
    "siemens-classic2d-skyra",
    "siemens-e11-mosaic",
    "siemens-xa30-enhanced-derived",
    "siemens-xa60-enhanced-b1000",
    "uih-umr770",
]
SAME_B = 1.0


@dataclass(slots=True)
class Theirs:
    """What dcm2niix made of one series: its images in RAS, with a b-value a volume where it wrote them."""

    images: list[Any] = field(default_factory=list)
    b_values: list[list[float]] = field(default_factory=list)

    def volumes(self) -> Counter[float]:
        return Counter(round(b, 0) for values in self.b_values for b in values)

    def grids(self) -> set[tuple[tuple[int, ...], tuple[float, ...]]]:
        """Columns, rows, slices, and their spacing in millimetres."""
        zooms = [tuple(round(float(mm), 2) for mm in image.header.get_zooms()[:3]) for image in self.images]
        return {(image.shape[:3], mm) for image, mm in zip(self.images, zooms, strict=True)}


@pytest.fixture(scope="session")
def dcm2niix() -> str:
    beside = Path(sys.executable).with_name("dcm2niix")
    path = shutil.which("dcm2niix") or (str(beside) if beside.exists() else None)
    if path is None:
        unavailable("dcm2niix")
    return str(path)


def converted(dcm2niix: str, folder: Path, out: Path) -> dict[str, Theirs]:
    """By series instance UID."""
    # -p n: values as displayed, which are the ones of RescaleSlope.
    arguments = ["-f", "%j", "-z", "n", "-b", "n", "-p", "n", "-o", str(out), str(folder)]
    subprocess.run([dcm2niix, *arguments], check=False, capture_output=True, timeout=300)
    found: dict[str, Theirs] = defaultdict(Theirs)
    for path in sorted(out.glob("*.nii")):
        theirs = found["".join(c for c in path.stem if c in "0123456789.")]
        theirs.images.append(nibabel.load(path))
        values = path.with_suffix(".bval")
        theirs.b_values.append([float(b) for b in values.read_text().split()] if values.exists() else [])
    return found


def ours_of(folder: Path) -> Iterator[tuple[int, list[InstanceHeader], dict[str, Dataset]]]:
    series: dict[int, list[Dataset]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        dataset = dcmread(path)
        series[int(dataset.SeriesNumber)].append(dataset)
    for number, datasets in series.items():
        headers = [read_header(dataset) for dataset in datasets]
        yield number, headers, {dataset.SOPInstanceUID: dataset for dataset in datasets}


def volumes_of(headers: list[InstanceHeader]) -> Counter[float]:
    """Volumes by b-value: the images of the most frequent position, and every other has as many."""
    counted: dict[float, Counter[object]] = defaultdict(Counter)
    for header in headers:
        for frame in header.frames:
            if frame.kind is not FrameKind.DERIVED_MAP and frame.b_value is not None:
                place = tuple(round(c, 1) for c in frame.position_lps_mm or ())
                counted[round(frame.b_value, 0)][place] += 1
    # Positions of the same slice may differ in the last digit from volume to volume.
    positions = {b: sum(places.values()) for b, places in counted.items()}
    slices = len({round(_along(f), 1) for h in headers for f in h.frames})
    return Counter({b: count // slices for b, count in positions.items()})


def grid_of(headers: list[InstanceHeader]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    frame = headers[0].frames[0]
    along = sorted({round(_along(frame), 1) for header in headers for frame in header.frames})
    row_mm, column_mm = frame.pixel_spacing_mm or (0.0, 0.0)
    between = (along[-1] - along[0]) / (len(along) - 1)
    spacing = tuple(round(mm, 2) for mm in (column_mm, row_mm, between))
    return (frame.columns, frame.rows, len(along)), spacing


def _along(frame) -> float:
    rx, ry, rz, cx, cy, cz = frame.orientation
    normal = np.array([ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx])
    return float(np.dot(frame.position_lps_mm, normal))


def planned(headers: list[InstanceHeader]) -> VolumePlan | Rejection | NotDiffusion:
    # One case is a few slices of a large series; what is there must still be read as dcm2niix reads it.
    return choose([replace(header, promised_slices=None) for header in headers])


def on_patient_axes(image: nibabel.Nifti1Image) -> tuple[np.ndarray, np.ndarray]:
    """Voxels as (volume, slice, row, column) with rising LPS axes, and the affine to LPS."""
    image = nibabel.as_closest_canonical(image)
    data, affine = np.asarray(image.dataobj, dtype=np.float64), image.affine.copy()
    data = data[..., None] if data.ndim == 3 else data
    data = data[::-1, ::-1]
    affine[:3, 3] += affine[:3, 0] * (data.shape[0] - 1) + affine[:3, 1] * (data.shape[1] - 1)
    affine[:3, :2] *= -1
    return data.transpose(3, 2, 1, 0), np.diag([-1, -1, 1, 1]) @ affine


def differences(plan: VolumePlan, volume: DwiVolume, theirs: Theirs) -> list[str]:
    """Where the chosen volume is not the one that dcm2niix wrote."""
    candidates = []
    for image, b_values in zip(theirs.images, theirs.b_values, strict=True):
        voxels_VZYX, affine_lps = on_patient_axes(image)
        if plan.kind is VolumeKind.DIRECTIONAL_MEAN and b_values:
            shell = voxels_VZYX[[abs(b - plan.b_value) < 50 for b in b_values]]
            with np.errstate(divide="ignore"):
                candidates.append((np.exp(np.log(np.clip(shell, 0, None)).mean(axis=0)), affine_lps))
        elif plan.kind is VolumeKind.TRACE:
            candidates += [(voxels_ZYX, affine_lps) for voxels_ZYX in voxels_VZYX]
    errors = []
    for voxels_ZYX, affine_lps in candidates:
        error = []
        if voxels_ZYX.shape != volume.voxels_ZYX.shape:
            error.append(f"shape {voxels_ZYX.shape}")
        elif not np.allclose(voxels_ZYX, volume.voxels_ZYX, rtol=1e-4, atol=1e-3):
            error.append(f"voxels differ by up to {np.abs(voxels_ZYX - volume.voxels_ZYX).max():g}")
        if not np.allclose(affine_lps, volume.affine_lps, atol=2e-2):
            error.append("affine")
        errors.append(error)
    return min(errors, key=len, default=["no such volume"])


@pytest.mark.parametrize("case_name", CASES)
def test_every_series_is_read_as_dcm2niix_reads_it(case_name, case, dcm2niix, tmp_path, capsys):
    by_uid = converted(dcm2niix, case(case_name), tmp_path)
    for number, headers, datasets in ours_of(case(case_name)):
        theirs = by_uid.get(headers[0].series_instance_uid, Theirs())
        volumes = volumes_of(headers)
        plan = planned(headers)
        found: list[str] = []
        apart: list[str] = []
        if theirs.volumes() != volumes:
            found.append(f"b-values {dict(theirs.volumes())} and {dict(volumes)}")
        if isinstance(plan, VolumePlan):
            volume = assemble(plan, datasets)
            assert isinstance(volume, DwiVolume)
            apart = differences(plan, volume, theirs)
            found += apart
        if theirs.images and theirs.grids() != {grid_of(headers)}:
            found.append(f"grids {theirs.grids()} and {grid_of(headers)}")
        verdict = EXPLAINED.get((case_name, number), "; ".join(found)) or "equal"
        with capsys.disabled():
            shapes = ", ".join(str(shape) for shape, _ in sorted(theirs.grids()))
            chosen = f"b={plan.b_value:.0f}" if isinstance(plan, VolumePlan) else type(plan).__name__
            print(  # noqa: T201 - the table is what this test is for
                f"\n| {case_name} {number} | {shapes} {dict(theirs.volumes())}"
                f" | {dict(volumes)} {chosen} | {verdict} |",
                end="",
            )
        if (case_name, number) not in EXPLAINED:
            assert found == []
        else:
            assert apart == []
