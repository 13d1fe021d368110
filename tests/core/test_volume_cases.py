"""Real series of six vendors: what becomes of each, and whether the volume is the one dcm2niix makes."""

import itertools
import json
import os
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from triage.core.diffusion import FrameKind, InstanceHeader, read_header
from triage.core.volume import (
    DwiVolume,
    NotDiffusion,
    Reason,
    Rejection,
    VolumeKind,
    VolumePlan,
    assemble,
    choose,
)

CASES = Path(__file__).parents[2].parent / "shared" / "cases"

pytestmark = [
    pytest.mark.skipif(
        not CASES.is_dir() and os.environ.get("CI") != "true", reason="the shared cases are not here"
    ),
]


@cache
def datasets(case: str) -> dict[str, Dataset]:
    read = (dcmread(file) for file in sorted((CASES / case / "data").iterdir()))
    return {dataset.SOPInstanceUID: dataset for dataset in read}


@cache
def series(case: str) -> dict[int, list[InstanceHeader]]:
    """The headers of each series, by series number."""
    found = defaultdict(list)
    for dataset in datasets(case).values():
        found[int(dataset.SeriesNumber)].append(read_header(dataset))
    return dict(found)


def reference(case: str, file: int = 0) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((CASES / case / "ref" / "geometry.json").read_text())[file]
    return result


def planned(headers: list[InstanceHeader]) -> VolumePlan:
    plan = choose(headers)
    assert isinstance(plan, VolumePlan), plan
    return plan


def assembled(case: str, headers: list[InstanceHeader]) -> DwiVolume:
    result = assemble(planned(headers), datasets(case))
    assert isinstance(result, DwiVolume), result
    return result


# Case, series number, what becomes of it: kind, b-value, slices and directions, or the reason.
OUTCOMES: list[tuple[str, int, object]] = [
    ("siemens-e11-mosaic", 4, (VolumeKind.DIRECTIONAL_MEAN, 1000.0, 25, 6)),
    ("ge-mr29-pioneer", 4, (VolumeKind.DIRECTIONAL_MEAN, 1000.0, 9, 3)),
    ("philips-achieva-2008-classic", 1201, (VolumeKind.TRACE, 1000.0, 60, 1)),
    ("uih-umr770", 6, (VolumeKind.DIRECTIONAL_MEAN, pytest.approx(929.75, abs=0.01), 20, 16)),
    ("siemens-xa60-enhanced-b1000", 14, Reason.NOT_AXIAL),
    ("siemens-xa30-enhanced-derived", 11, NotDiffusion),
    ("siemens-xa30-enhanced-derived", 12, Reason.NO_B1000),
    ("siemens-xa30-enhanced-derived", 13, NotDiffusion),
    ("siemens-xa30-enhanced-derived", 14, NotDiffusion),
    ("siemens-xa30-enhanced-derived", 16, Reason.NO_B1000),
    ("philips-enhanced-achieva", 501, Reason.NO_B1000),
    ("canon-v60-classic", 9000, Reason.NO_B1000),
    ("canon-v61-enhanced", 3000, Reason.NO_B1000),
    # Four slices of a protocol that planned forty.
    ("siemens-classic2d-skyra", 8, Reason.INCOMPLETE),
    ("negative-ge-fmri", 2, NotDiffusion),
    ("mixed-philips-nonimage", 0, NotDiffusion),
    ("mixed-philips-nonimage", 701, NotDiffusion),
]


@pytest.mark.parametrize(("case", "number", "expected"), OUTCOMES)
def test_every_real_series_comes_to_its_outcome(case, number, expected):
    match choose(series(case)[number]):
        case VolumePlan() as plan:
            assert (plan.kind, plan.b_value, plan.slice_count, plan.direction_count) == expected
        case Rejection() as rejection:
            assert rejection.reason is expected
        case NotDiffusion():
            assert expected is NotDiffusion


def test_every_series_of_every_case_is_in_the_table():
    cases = {path.parent.name for path in CASES.glob("*/data") if not path.parent.name.startswith("stroke")}
    assert {(case, number) for case in cases for number in series(case)} == {row[:2] for row in OUTCOMES}


AXIAL = [row[:2] for row in OUTCOMES if isinstance(row[2], tuple)]


@pytest.mark.parametrize(("case", "number"), AXIAL)
def test_shape_and_spacing_are_those_of_dcm2niix(case, number):
    result, expected = assembled(case, series(case)[number]), reference(case)
    columns, rows, slices = expected["shape"][:3]
    assert result.voxels_ZYX.shape == (slices, rows, columns)
    column_mm, row_mm, slice_mm = expected["zooms"]
    assert result.spacing_mm == pytest.approx((slice_mm, row_mm, column_mm), abs=1e-3)
    assert planned(series(case)[number]).spacing_mm == pytest.approx(result.spacing_mm, abs=1e-3)


@pytest.mark.parametrize(("case", "number"), AXIAL)
def test_the_corners_lie_where_dcm2niix_puts_them(case, number):
    result, expected = assembled(case, series(case)[number]), reference(case)
    to_lps = np.diag([-1, -1, 1, 1]) @ np.array(expected["affine"])
    theirs = corners(to_lps, expected["shape"][:3])
    slices, rows, columns = result.voxels_ZYX.shape
    ours = corners(result.affine_lps, (columns, rows, slices))
    distances = np.linalg.norm(theirs[:, None] - ours[None], axis=2)
    assert distances.min(axis=0).max() < 0.01
    assert sorted(distances.argmin(axis=0)) == list(range(8))


def corners(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    ends = itertools.product(*((0, length - 1) for length in shape))
    return np.array([(affine @ [*end, 1])[:3] for end in ends])


@pytest.mark.parametrize(("case", "number"), AXIAL)
def test_every_axis_ascends_in_patient_space(case, number):
    result = assembled(case, series(case)[number])
    assert (np.diag(result.affine_lps)[:3] > 0).all()
    assert np.isfinite(result.voxels_ZYX).all()


@pytest.mark.parametrize(
    ("case", "number"), [("siemens-e11-mosaic", 4), ("uih-umr770", 6), ("ge-mr29-pioneer", 4)]
)
def test_single_directions_hold_the_values_of_dcm2niix(case, number):
    expected = reference(case)
    by_direction = defaultdict(list)
    for header in series(case)[number]:
        if header.frames[0].kind is FrameKind.DIRECTIONAL:
            by_direction[header.frames[0].direction].append(header)
    found = [assembled(case, headers).voxels_ZYX for headers in by_direction.values()]
    # The mean of one direction is that direction, so each volume must be one of theirs.
    assert sorted(float(v.astype(np.float64).mean()) for v in found) == pytest.approx(
        sorted(expected["volume_mean"][1:]), rel=1e-5
    )
    assert sorted(float(v.max()) for v in found) == pytest.approx(
        sorted(expected["volume_max"][1:]), rel=1e-5
    )


@pytest.mark.parametrize(("case", "number"), [("siemens-e11-mosaic", 4), ("uih-umr770", 6)])
def test_the_mean_lies_below_the_arithmetic_one_and_near_it(case, number):
    mean = assembled(case, series(case)[number]).voxels_ZYX.mean()
    arithmetic = np.mean(reference(case)["volume_mean"][1:])
    assert 0.85 * arithmetic < mean < arithmetic


def test_the_philips_trace_holds_the_values_of_dcm2niix():
    case = "philips-achieva-2008-classic"
    result, expected = assembled(case, series(case)[1201]), reference(case, file=1)
    source = datasets(case)[result.source_sop_instance_uids[0]]
    # dcm2niix undoes the display scaling: (2005,100E) is Philips' scale slope.
    to_floating_point = 1 / (float(source.RescaleSlope) * source[0x2005, 0x100E].value)
    assert result.voxels_ZYX.astype(np.float64).mean() * to_floating_point == pytest.approx(
        expected["volume_mean"][4], rel=1e-4
    )
    assert result.voxels_ZYX.max() * to_floating_point == pytest.approx(expected["volume_max"][4], rel=1e-4)


def test_the_brain_is_the_right_way_up():
    # The widest slice of a head lies below the vertex and above the neck, and the chin is in front.
    result = assembled("siemens-e11-mosaic", series("siemens-e11-mosaic")[4])
    width = (result.voxels_ZYX > 30).sum(axis=(1, 2))
    assert width[-1] < width.max() / 2
    assert width.argmax() > len(width) / 4
