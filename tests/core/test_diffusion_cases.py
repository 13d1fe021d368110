"""Real headers of six vendors, against what dcm2niix read from the same files."""

import json
import os
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from triage.core.diffusion import FrameKind, InstanceHeader, header_from_json, read_header, to_json

CASES = Path(__file__).parents[2].parent / "shared" / "cases"

pytestmark = [
    pytest.mark.skipif(
        not CASES.is_dir() and os.environ.get("CI") != "true", reason="the shared cases are not here"
    ),
]


@cache
def headers(case: str) -> tuple[InstanceHeader, ...]:
    files = sorted((CASES / case / "data").iterdir())
    return tuple(read_header(dcmread(file, stop_before_pixels=True)) for file in files)


@pytest.mark.parametrize(
    ("case", "slices"),
    [
        ("siemens-e11-mosaic", 25),
        ("siemens-xa60-enhanced-b1000", 10),
        ("ge-mr29-pioneer", 9),
        ("philips-enhanced-achieva", 8),
        ("canon-v60-classic", 40),
        ("canon-v61-enhanced", 40),
        ("uih-umr770", 20),
    ],
)
def test_b_values_are_those_of_dcm2niix(case, slices):
    (bval,) = (CASES / case / "ref").glob("*.bval")
    expected = Counter({float(b): count * slices for b, count in Counter(bval.read_text().split()).items()})
    found = Counter(frame.b_value for header in headers(case) for frame in header.frames)
    assert {round(b, 2): count for b, count in found.items() if b is not None} == {
        round(b, 2): count for b, count in expected.items()
    }


@pytest.mark.parametrize(
    ("case", "directions"),
    [
        ("siemens-e11-mosaic", 6),
        ("siemens-xa60-enhanced-b1000", 6),
        ("ge-mr29-pioneer", 3),
        ("philips-enhanced-achieva", 3),
        ("philips-achieva-2008-classic", 3),
        ("canon-v60-classic", 3),
        ("canon-v61-enhanced", 12),
        ("uih-umr770", 16),
    ],
)
def test_directions_are_told_apart(case, directions):
    frames = [f for header in headers(case) for f in header.frames if f.kind is FrameKind.DIRECTIONAL]
    assert len({frame.direction for frame in frames}) == directions
    assert None not in {frame.direction for frame in frames}


def test_philips_keeps_trace_and_directions_in_one_series():
    kinds = Counter(f.kind for header in headers("philips-achieva-2008-classic") for f in header.frames)
    assert kinds == {FrameKind.B0: 60, FrameKind.DIRECTIONAL: 180, FrameKind.TRACE: 60}


def test_siemens_maps_and_trace_are_told_apart():
    kinds = [{f.kind for f in header.frames} for header in headers("siemens-xa30-enhanced-derived")]
    assert Counter(frozenset(kind) for kind in kinds) == {
        frozenset({FrameKind.DERIVED_MAP}): 3,
        frozenset({FrameKind.TRACE}): 1,
        frozenset({FrameKind.B0}): 1,
    }


def test_ge_functional_images_do_not_look_like_diffusion():
    assert not any(header.looks_like_diffusion for header in headers("negative-ge-fmri"))


def test_presentation_state_and_raw_data_have_no_frames():
    assert [header.frames for header in headers("mixed-philips-nonimage")] == [(), ()]


@pytest.mark.parametrize(
    ("case", "slices", "directions"),
    [
        ("ge-mr29-pioneer", 9, 6),
        ("philips-achieva-2008-classic", 60, 33),
        ("siemens-e11-mosaic", 25, 12),
        ("canon-v60-classic", None, None),
    ],
)
def test_promises_of_real_scanners(case, slices, directions):
    assert {(h.promised_slices, h.promised_directions) for h in headers(case)} == {(slices, directions)}


def test_mosaic_tiles_lie_where_dcm2niix_puts_them():
    (volume,) = json.loads((CASES / "siemens-e11-mosaic" / "ref" / "geometry.json").read_text())
    affine_lps = np.diag([-1, -1, 1, 1]) @ np.array(volume["affine"])
    rows = volume["shape"][1]
    for k, frame in enumerate(headers("siemens-e11-mosaic")[0].frames):
        # dcm2niix stores the rows of an axial image from the last to the first.
        expected = affine_lps @ [0, rows - 1, k, 1]
        assert frame.position_lps_mm == pytest.approx(expected[:3], abs=1e-3)


@pytest.mark.parametrize(
    "case", sorted(p.name for p in CASES.glob("*") if (p / "ref" / "geometry.json").exists())
)
def test_real_headers_survive_json(case):
    for header in headers(case):
        assert header_from_json(to_json(header)) == header
