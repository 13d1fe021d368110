"""Damaged, absurd and hostile files: a reason, soon, and without asking for memory."""

import io
import random
import struct
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from triage.core.completeness import judge_completeness
from triage.core.dataset import parse
from triage.core.diffusion import header_from_json, read_header, to_json
from triage.core.volume import DwiVolume, Reason, Rejection, VolumePlan, assemble, choose
from triage.errors import HeaderError

# pydicom warns about what it meets here, and it is meant to meet it.
pytestmark = pytest.mark.filterwarnings("ignore")


@contextmanager
def bounded(seconds: float = 10.0, mebibytes: float = 64.0) -> Iterator[None]:
    tracemalloc.start()
    begun = time.process_time()
    try:
        yield
        assert time.process_time() - begun < seconds
        assert tracemalloc.get_traced_memory()[1] < mebibytes * 2**20
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def files(case) -> list[bytes]:
    """A Siemens mosaic series: b=0 and six directions."""
    return [path.read_bytes() for path in sorted(case("siemens-e11-mosaic").iterdir())]


def saved(dataset: Dataset) -> bytes:
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def outcome(contents: list[bytes]) -> object:
    """What becomes of a series: the volume, a Rejection, or the HeaderErrors that kept every file out."""
    datasets = {}
    headers = []
    errors = []
    for content in contents:
        try:
            dataset = parse(content, with_pixels=True)
            header = read_header(dataset)
        except HeaderError as error:
            errors.append(error)
            continue
        headers.append(header_from_json(to_json(header)))
        datasets[header.sop_instance_uid] = dataset
    if not headers:
        return errors
    judge_completeness(headers)
    plan = choose(headers)
    return assemble(plan, datasets) if isinstance(plan, VolumePlan) else plan


def test_a_good_series_is_a_volume(files):
    assert isinstance(outcome(files), DwiVolume)


@pytest.mark.parametrize("size", [0, 1, 131, 132, 200, 1000, 5000, 100_000, 200_000])
def test_a_truncated_file_is_refused_or_leaves_its_direction_missing(size, files):
    with bounded():
        assert isinstance(outcome([content[:size] for content in files]), Rejection | list)


def test_an_empty_file_is_refused():
    with pytest.raises(HeaderError, match="no DICOM file: too short"):
        parse(b"", with_pixels=True)


@pytest.mark.parametrize(
    "attributes",
    [
        {"Rows": 65535, "Columns": 65535},
        {"Rows": 0},
        {"Columns": 0},
        {"NumberOfFrames": 2**31 - 1},
        {"NumberOfFrames": -5},
        {"BitsAllocated": 8},
        {"BitsAllocated": 64},
        {"BitsAllocated": 0},
        {"SamplesPerPixel": 3},
        {"PixelSpacing": [1e-30, 1e-30]},
        {"PixelSpacing": [0, 0]},
        {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]},
        {"SpacingBetweenSlices": -1},
    ],
)
def test_absurd_attributes_are_a_rejection(attributes, files):
    contents = []
    for content in files:
        dataset = dcmread(io.BytesIO(content))
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        contents.append(saved(dataset))
    with bounded():
        found = outcome(contents)
    assert not isinstance(found, list)
    if "SpacingBetweenSlices" not in attributes and attributes != {"PixelSpacing": [1e-30, 1e-30]}:
        assert not isinstance(found, DwiVolume)


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, RLELossless, JPEG2000Lossless])
def test_a_wrong_transfer_syntax_in_the_meta_header_is_refused(syntax, files):
    contents = []
    for content in files:
        meta = dcmread(io.BytesIO(content)).file_meta
        name = str(meta.TransferSyntaxUID).encode()
        wrong = str(syntax).encode().ljust(len(name), b"\0")
        if len(wrong) > len(name):
            grown = len(wrong) + len(wrong) % 2 - len(name) - len(name) % 2
            length = struct.unpack_from("<I", content, 140)[0]
            content = content[:140] + struct.pack("<I", length + grown) + content[144:]
            old = struct.pack("<H", len(name) + len(name) % 2) + name + b"\0" * (len(name) % 2)
            new = struct.pack("<H", len(wrong) + len(wrong) % 2) + wrong + b"\0" * (len(wrong) % 2)
            content = content.replace(old, new, 1)
        else:
            content = content.replace(name, wrong, 1)
        contents.append(content)
    with bounded():
        assert isinstance(outcome(contents), Rejection | list)


@pytest.mark.parametrize("depth", [50, 5000])
def test_nested_sequences_end(depth, files):
    start = b"\x08\x00\x40\x11" + b"SQ\0\0" + b"\xff" * 4 + b"\xfe\xff\x00\xe0" + b"\xff" * 4
    end = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    place = files[0].index(b"\x08\x00\x60\x00CS")
    content = files[0][:place] + start * depth + end * depth + files[0][place:]
    with bounded():
        outcome([content])


def test_a_huge_private_blob_costs_its_size_and_no_more(files):
    dataset = dcmread(io.BytesIO(files[0]))
    for tag in (0x0019100C, 0x00291010, 0x00291020):
        dataset.add_new(tag, "UN", b"1\\" * (8 * 2**20))
    content = saved(dataset)
    with bounded(mebibytes=200):
        header = read_header(parse(content, with_pixels=False))
    assert header.frames[0].b_value in (0.0, 1000.0)


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "PixelSpacing", "DiffusionBValue", "ImageType"])
def test_a_million_values_are_not_converted(keyword, files):
    dataset = parse(files[0], with_pixels=False)
    raw = b"1\\" * (4 * 2**20) + b"1 "
    vr = "CS" if keyword == "ImageType" else "DS"
    tag = Tag(keyword)
    dataset._dict[tag] = RawDataElement(tag, vr, len(raw), raw, 0, False, True)
    with bounded(seconds=2):
        read_header(dataset)


def test_a_deflated_bomb_is_not_inflated(files):
    dataset = dcmread(io.BytesIO(files[0]), stop_before_pixels=True)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    content = saved(dataset)
    body = content[144 + struct.unpack_from("<I", content, 140)[0] :]
    head = content[: len(content) - len(body)]
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    zeros = b"\x09\x00\x10\x10OB\0\0" + struct.pack("<I", 2**26) + b"\0" * 2**26
    bomb = (
        head
        + packer.compress(zlib.decompress(body, -zlib.MAX_WBITS))
        + packer.compress(zeros)
        + packer.flush()
    )
    with bounded(mebibytes=16), pytest.raises(HeaderError, match="inflates to more than 1 MiB"):
        parse(bomb, with_pixels=False, limit_bytes=2**20)
    damaged = head + b"\xff" * 100
    with pytest.raises(HeaderError, match="cannot be parsed"):
        parse(damaged, with_pixels=False)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_a_codestream_that_announces_more_than_the_header_is_refused(syntax, files):
    contents = []
    for content in files:
        dataset = dcmread(io.BytesIO(content))
        size = struct.pack(">HH", dataset.Rows, dataset.Columns)
        wide = struct.pack(">II", dataset.Columns, dataset.Rows)
        dataset.compress(syntax, generate_instance_uid=False)
        if syntax is JPEG2000Lossless:
            changed = dataset.PixelData.replace(wide, struct.pack(">II", 60000, 60000), 1)
        else:
            changed = dataset.PixelData.replace(size, struct.pack(">HH", 60000, 60000), 1)
        assert changed != dataset.PixelData
        dataset.PixelData = changed
        contents.append(saved(dataset))
    with bounded(mebibytes=128):
        found = outcome(contents)
    assert isinstance(found, Rejection)
    assert found.reason is Reason.UNREADABLE
    assert "does not hold the 640 x 640 pixels" in found.detail


def test_a_series_beyond_the_limit_is_refused(files):
    datasets = [parse(content, with_pixels=True) for content in files]
    plan = choose([read_header(dataset) for dataset in datasets])
    assert isinstance(plan, VolumePlan)
    found = assemble(plan, {str(d.SOPInstanceUID): d for d in datasets}, limit_bytes=2**20)
    assert found == Rejection(Reason.UNREADABLE, "25 slices of 128 x 128 pixels need more than 1 MiB")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), hits=st.integers(1, 60), in_header=st.booleans(), cut=st.integers(0, 3))
def test_damaged_bytes_never_crash_the_readers_or_the_assembler(files, seed, hits, in_header, cut):
    chance = random.Random(seed)
    contents = []
    for content in files[:3]:
        damaged = bytearray(content)
        end = damaged.find(b"\xe0\x7f\x10\x00") if in_header else len(damaged)
        for _ in range(hits):
            damaged[chance.randrange(132, end)] = chance.randrange(256)
        contents.append(bytes(damaged[: len(damaged) - cut * 1000]))
    begun = time.process_time()
    outcome(contents)
    assert time.process_time() - begun < 10
