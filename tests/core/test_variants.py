"""Real headers as anonymisers, PACS and senders leave them, each with what must come of it."""

import struct
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from triage.core.b_values import remarks, with_stated_b_value
from triage.core.diffusion import BSource, FrameKind, InstanceHeader, read_header
from triage.core.volume import NotDiffusion, Reason, Rejection, VolumeKind, VolumePlan, choose

GE, PHILIPS, SIEMENS, UIH = (
    "ge-mr29-pioneer",
    "philips-achieva-2008-classic",
    "siemens-e11-mosaic",
    "uih-umr770",
)
ENHANCED_PHILIPS, ENHANCED_SIEMENS, CANON = (
    "philips-enhanced-achieva",
    "siemens-xa60-enhanced-b1000",
    "canon-v60-classic",
)
Change = Callable[[list[Dataset]], object]


def everywhere(change: Callable[[Dataset], object]) -> Change:
    """The change in every data set, and in every item of its sequences."""
    return lambda datasets: [change(each) for dataset in datasets for each in with_items(dataset)]


def with_items(dataset: Dataset) -> Iterator[Dataset]:
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from with_items(item)


def drop(*tags: str | tuple[int, int] | BaseTag) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        for tag in [Tag(name) for name in tags]:
            if tag in dataset:
                del dataset[tag]

    return change


def without_creators(dataset: Dataset) -> None:
    drop(*[tag for tag in list(dataset.keys()) if tag.is_private and tag.element < 0x100])(dataset)


without_standard = drop(
    "DiffusionBValue", "MRDiffusionSequence", "DiffusionGradientOrientation", "DiffusionDirectionality"
)
BINARY = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "UL": "I", "US": "H"}


def as_unknown(dataset: Dataset) -> None:
    """What a PACS makes of private elements: bytes of a UN element."""
    for tag in [tag for tag in dataset.keys() if tag.is_private and tag.element >= 0x100]:  # noqa: SIM118
        element = dataset[tag]
        value = element.value if element.VM != 1 else [element.value]
        if element.VR in BINARY:
            raw = struct.pack(f"<{len(value)}{BINARY[element.VR]}", *value)
        elif element.VR in ("IS", "DS", "CS", "LO", "SH"):
            raw = "\\".join(map(str, value)).encode().ljust(2)
            raw += b" " * (len(raw) % 2)
        else:
            continue
        dataset.add_new(tag, "UN", raw)


def ge_offset(datasets: list[Dataset]) -> None:
    for dataset in datasets:
        first, *others = dataset[0x0043, 0x1039].value
        dataset[0x0043, 0x1039].value = [int(first) + 1_000_000_000, *others]


def b_zero_written_as(written: float | None) -> Change:
    def change(datasets: list[Dataset]) -> None:
        for dataset in datasets:
            if read_header(dataset).frames[0].kind is FrameKind.B0:
                drop((0x0043, 0x1039), (0x0019, 0x100C), (0x2001, 0x1003), (0x0029, 0x1010))(dataset)
                drop("DiffusionBValue", "SequenceName")(dataset)
                if written is not None:
                    dataset.DiffusionBValue = written

    return change


def one_missing(datasets: list[Dataset]) -> None:
    weighted = [d for d in datasets if read_header(d).frames[0].kind is FrameKind.DIRECTIONAL]
    datasets.remove(sorted(weighted, key=lambda d: float(d.ImagePositionPatient[2]))[4])


def one_doubled(datasets: list[Dataset]) -> None:
    weighted = next(d for d in datasets if read_header(d).frames[0].kind is FrameKind.DIRECTIONAL)
    twin = deepcopy(weighted)
    twin.SOPInstanceUID = "1.2.3.4.5"
    datasets.append(twin)


def one_from_elsewhere(datasets: list[Dataset]) -> None:
    weighted = next(d for d in datasets if read_header(d).frames[0].kind is FrameKind.DIRECTIONAL)
    weighted.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]


def one_shifted(datasets: list[Dataset]) -> None:
    weighted = [d for d in datasets if read_header(d).frames[0].kind is FrameKind.DIRECTIONAL]
    weighted[0].ImagePositionPatient = [c + 1.7 for c in weighted[0].ImagePositionPatient]


def nothing(datasets: list[Dataset]) -> None:
    pass


def several(*changes: Change) -> Change:
    return lambda datasets: [change(datasets) for change in changes]


no_standard, no_creators, as_un = map(everywhere, (without_standard, without_creators, as_unknown))
only_name = everywhere(drop((0x0019, 0x100C), (0x0029, 0x1010)))
no_private = everywhere(lambda d: drop(*[tag for tag in list(d.keys()) if tag.is_private])(d))
no_b_value = several(no_private, no_standard, everywhere(drop("SequenceName")))
MEAN, TRACE = VolumeKind.DIRECTIONAL_MEAN, VolumeKind.TRACE

# Case, change -> b-value source and kind of the volume that is judged, or the reason why none is.
VARIANTS: list[tuple[str, str, Change, object]] = [
    (GE, "as it is", nothing, (BSource.STANDARD, MEAN)),
    (GE, "standard b-value removed", no_standard, (BSource.GE, MEAN)),
    (GE, "creators removed", several(no_standard, no_creators), (BSource.GE, MEAN)),
    (GE, "private as UN", several(no_standard, as_un), (BSource.GE, MEAN)),
    (GE, "offset 1e9", several(no_standard, ge_offset), (BSource.GE, MEAN)),
    (GE, "private removed", no_private, (BSource.STANDARD, MEAN)),
    (GE, "every b-value removed", no_b_value, Reason.B_VALUE_UNKNOWN),
    (GE, "b=0 absent", b_zero_written_as(None), (BSource.STANDARD, MEAN)),
    (GE, "b=0 as 5", b_zero_written_as(5.0), (BSource.STANDARD, MEAN)),
    (GE, "b=0 as 1.25", b_zero_written_as(1.25), (BSource.STANDARD, MEAN)),
    (GE, "b=0 as 0.001", b_zero_written_as(0.001), (BSource.STANDARD, MEAN)),
    (GE, "one missing", one_missing, Reason.INCOMPLETE),
    (GE, "one doubled", one_doubled, Reason.MIXED_GEOMETRY),
    (GE, "one from another series", one_from_elsewhere, Reason.MIXED_GEOMETRY),
    (GE, "one shifted", one_shifted, Reason.UNEVEN_SPACING),
    (GE, "thickness wrong", everywhere(lambda d: setattr(d, "SliceThickness", 99)), (BSource.STANDARD, MEAN)),
    (PHILIPS, "as it is", nothing, (BSource.PHILIPS, TRACE)),
    (PHILIPS, "creators removed", no_creators, (BSource.PHILIPS, TRACE)),
    (PHILIPS, "private as UN", as_un, (BSource.PHILIPS, TRACE)),
    (PHILIPS, "creators removed, UN", several(no_creators, as_un), (BSource.PHILIPS, TRACE)),
    (PHILIPS, "private removed", no_private, NotDiffusion),
    (SIEMENS, "as it is", nothing, (BSource.SIEMENS, MEAN)),
    (SIEMENS, "creators removed", no_creators, (BSource.SIEMENS, MEAN)),
    (SIEMENS, "private as UN", as_un, (BSource.SIEMENS, MEAN)),
    (SIEMENS, "(0019,100C) removed", everywhere(drop((0x0019, 0x100C))), (BSource.SIEMENS_CSA, MEAN)),
    (SIEMENS, "b only in the name", only_name, (BSource.SIEMENS_NAME, MEAN)),
    (SIEMENS, "private removed", no_private, Reason.UNREADABLE),
    (SIEMENS, "b=0 absent", b_zero_written_as(None), (BSource.SIEMENS, MEAN)),
    (UIH, "as it is", nothing, (BSource.UIH, MEAN)),
    (UIH, "creators removed", no_creators, (BSource.UIH, MEAN)),
    (UIH, "private as UN", as_un, (BSource.UIH, MEAN)),
    (CANON, "b only in the comment", no_standard, Reason.NO_B1000),
]  # fmt: skip


def read(folder: Path) -> list[Dataset]:
    return [dcmread(path, stop_before_pixels=True) for path in sorted(folder.iterdir())]


@pytest.mark.parametrize(
    ("case_name", "change", "expected"),
    [pytest.param(name, change, expected, id=f"{name}: {what}") for name, what, change, expected in VARIANTS],
)
def test_a_changed_header_is_read_or_refused_as_the_table_says(case_name, change, expected, case):
    datasets = read(case(case_name))
    change(datasets)
    plan = choose([read_header(dataset) for dataset in datasets])
    match plan:
        case VolumePlan():
            assert ({s.frame.b_source for slice_ in plan.slices for s in slice_}, plan.kind) == (
                {expected[0]},
                expected[1],
            )
            assert 900 < plan.b_value < 1010
        case Rejection():
            assert plan.reason is expected, plan
        case NotDiffusion():
            assert expected is NotDiffusion


@pytest.mark.parametrize(
    ("case_name", "source", "b_values"),
    [
        (ENHANCED_PHILIPS, BSource.PHILIPS, {0.0, 1300.0}),
        (ENHANCED_SIEMENS, BSource.SIEMENS_NAME, {0.0, 1000.0}),
    ],
)
def test_the_vendors_own_b_value_is_the_standards(case_name, source, b_values, case):
    datasets = read(case(case_name))
    before = [[frame.b_value for frame in read_header(dataset).frames] for dataset in datasets]
    no_standard(datasets)
    frames = [read_header(dataset).frames for dataset in datasets]
    assert [[frame.b_value for frame in each] for each in frames] == before
    assert {frame.b_value for each in frames for frame in each} == b_values
    assert {frame.b_source for each in frames for frame in each} == {source}


def test_canon_says_the_b_value_in_the_comment_and_leaves_b_zero_out(case):
    datasets = read(case(CANON))
    no_standard(datasets)
    frames = [frame for dataset in datasets for frame in read_header(dataset).frames]
    known = {(frame.b_value, frame.b_source) for frame in frames}
    assert known == {(None, BSource.NONE), (1500.0, BSource.CANON)}


def test_without_manufacturer_no_block_is_guessed(case):
    datasets = read(case("siemens-classic2d-skyra"))
    everywhere(drop("Manufacturer"))(datasets)
    outcome = choose([read_header(dataset) for dataset in datasets])
    assert isinstance(outcome, Rejection)
    assert outcome.reason is Reason.B_VALUE_UNKNOWN


def headers_of(datasets: list[Dataset]) -> list[InstanceHeader]:
    return [read_header(dataset) for dataset in datasets]


def test_sources_that_disagree_are_told_and_the_first_counts(case):
    datasets = read(case(GE))
    for dataset in datasets:
        if "DiffusionBValue" in dataset:
            dataset[0x0043, 0x1039].value = [1_000_000_700, 8, 0, 0]
    headers = headers_of(datasets)
    plan = choose(headers)
    assert isinstance(plan, VolumePlan)
    assert plan.b_value == 1000
    assert remarks(headers) == [
        "b-values disagree in 27 images: (0018,9087) DiffusionBValue says b=1000, "
        "GE (0043,1039) says b=700; the first counts"
    ]


@pytest.mark.parametrize("case_name", [GE, PHILIPS, SIEMENS, UIH, CANON, ENHANCED_PHILIPS, ENHANCED_SIEMENS])
def test_real_headers_do_not_contradict_themselves(case_name, case):
    assert remarks(headers_of(read(case(case_name)))) == []


def test_the_operators_rule_fills_what_is_unknown_and_says_so(case):
    datasets = read(case(PHILIPS))
    weighted = [d for d in datasets if d[0x2001, 0x1004].value == "I" and d[0x2001, 0x1003].value > 0]
    no_private(weighted)
    headers = headers_of(weighted)
    assert not isinstance(choose(headers), VolumePlan)
    stated = with_stated_b_value(headers, 1000.0)
    plan = choose(stated)
    assert isinstance(plan, VolumePlan)
    assert (plan.b_value, plan.slice_count, plan.kind) == (1000.0, 60, VolumeKind.TRACE)
    assert remarks(stated) == ["b=1000 of 60 images was stated by dicom.b_value_rules in the configuration"]


def test_the_operators_rule_never_goes_over_a_b_value_or_a_map(case):
    known = headers_of(read(case(CANON)))
    assert with_stated_b_value(known, 1000.0) == known
    maps = headers_of(read(case("siemens-xa30-enhanced-derived")))
    assert with_stated_b_value(maps, 1000.0) == maps
    assert with_stated_b_value(maps, None) == maps
