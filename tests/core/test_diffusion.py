"""What one header says: each reader, each layout, and headers that say nonsense."""

import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from triage.core.diffusion import (
    BSource,
    DwiFrame,
    FrameKind,
    InstanceHeader,
    header_from_json,
    read_header,
    to_json,
)
from triage.errors import HeaderError

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
ENHANCED_COLOR = "1.2.840.10008.5.1.4.1.1.4.3"


def instance(**attributes: Any) -> Dataset:
    """A classic axial MR image; None leaves an attribute out."""
    dataset = Dataset()
    standard: dict[str, Any] = {
        "SOPClassUID": MR,
        "SOPInstanceUID": "1.2.3.4",
        "SeriesInstanceUID": "1.2.3",
        "StudyInstanceUID": "1.2",
        "Modality": "MR",
        "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
        "Rows": 64,
        "Columns": 48,
        "PixelSpacing": [2.0, 3.0],
        "ImagePositionPatient": [-10.0, -20.0, 30.0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    }
    for keyword, value in (standard | attributes).items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def with_private(dataset: Dataset, group: int, creator: str, **elements: tuple[str, object]) -> Dataset:
    """Private elements by hexadecimal offset: x0c=("IS", 1000)."""
    block = dataset.private_block(group, creator, create=True)
    for offset, (vr, value) in elements.items():
        block.add_new(int(offset[1:], 16), vr, value)
    return dataset


def ge(first: object, flag: int | None = None, axes: tuple[str, ...] = ()) -> Dataset:
    dataset = with_private(instance(), 0x43, "GEMS_PARM_01", x39=("IS", first))
    if flag is not None:
        with_private(dataset, 0x43, "GEMS_PARM_01", x30=("SS", flag))
    for offset, axis in zip((0xBB, 0xBC, 0xBD), axes, strict=False):
        with_private(dataset, 0x19, "GEMS_ACQU_01", **{f"x{offset:x}": ("DS", axis)})
    return dataset


def siemens(b_value: int | None, name: str = "", **attributes: Any) -> Dataset:
    dataset = instance(SequenceName=name, **attributes)
    return (
        with_private(dataset, 0x19, "SIEMENS MR HEADER", x0c=("IS", b_value))
        if b_value is not None
        else dataset
    )


def philips(b_value: float, direction: str, index: int | None = None) -> Dataset:
    dataset = with_private(
        instance(), 0x2001, "Philips Imaging DD 001", x03=("FL", b_value), x04=("CS", direction)
    )
    if index is not None:
        with_private(dataset, 0x2005, "Philips MR Imaging DD 005", x13=("IS", index))
    return dataset


def only_frame(dataset: Dataset) -> DwiFrame:
    (frame,) = read_header(dataset).frames
    return frame


# One row a way of saying it: dataset -> b-value, source, kind, direction index.
WEIGHTINGS = {
    "nothing": (instance(), None, BSource.NONE, FrameKind.UNKNOWN),
    "standard": (instance(DiffusionBValue=1000.0), 1000.0, BSource.STANDARD, FrameKind.UNKNOWN),
    "standard isotropic": (
        instance(DiffusionBValue=1000.0, DiffusionDirectionality="ISOTROPIC"),
        1000.0,
        BSource.STANDARD,
        FrameKind.TRACE,
    ),
    "standard direction": (
        instance(DiffusionBValue=1000.0, DiffusionGradientOrientation=[0.0, 0.0, 1.0]),
        1000.0,
        BSource.STANDARD,
        FrameKind.DIRECTIONAL,
    ),
    "standard b-matrix": (
        instance(DiffusionBValue=1000.0, DiffusionDirectionality="BMATRIX"),
        1000.0,
        BSource.STANDARD,
        FrameKind.DIRECTIONAL,
    ),
    "standard zero direction": (
        instance(DiffusionBValue=1000.0, DiffusionGradientOrientation=[0.0, 0.0, 0.0]),
        1000.0,
        BSource.STANDARD,
        FrameKind.UNKNOWN,
    ),
    "standard b=0": (instance(DiffusionBValue=0.0), 0.0, BSource.STANDARD, FrameKind.B0),
    "7 T b=0": (instance(DiffusionBValue=5.0), 5.0, BSource.STANDARD, FrameKind.B0),
    "impossible b": (instance(DiffusionBValue=-1.0), None, BSource.NONE, FrameKind.UNKNOWN),
    "infinite b": (instance(DiffusionBValue=float("inf")), None, BSource.NONE, FrameKind.UNKNOWN),
    "anisotropy": (
        instance(DiffusionBValue=1000.0, DiffusionAnisotropyType="FRACTIONAL"),
        1000.0,
        BSource.STANDARD,
        FrameKind.DERIVED_MAP,
    ),
    "GE": (ge([1000, 8, 0, 0]), 1000.0, BSource.GE, FrameKind.UNKNOWN),
    "GE with offset": (ge([1000001000, 8, 0, 0]), 1000.0, BSource.GE, FrameKind.UNKNOWN),
    "GE offset b=0": (ge([1000000000, 8, 0, 0]), 0.0, BSource.GE, FrameKind.B0),
    "GE negative": (ge([-1, 8, 0, 0]), None, BSource.NONE, FrameKind.UNKNOWN),
    "GE functional": (ge([0, 0, 0, 0], flag=15), 0.0, BSource.GE, FrameKind.B0),
    "GE combined": (ge([1000, 8, 0, 0], flag=15), 1000.0, BSource.GE, FrameKind.TRACE),
    "GE tensor": (
        ge([1000, 8, 0, 0], flag=16, axes=("0.6", "0.8", "0")),
        1000.0,
        BSource.GE,
        FrameKind.DIRECTIONAL,
    ),
    "GE axis": (ge([1000, 8, 0, 0], flag=4), 1000.0, BSource.GE, FrameKind.DIRECTIONAL),
    "GE T2 with a b-value": (ge([1000, 8, 0, 0], flag=14), 1000.0, BSource.GE, FrameKind.B0),
    "GE FA": (ge([1000, 8, 0, 0], flag=18), 1000.0, BSource.GE, FrameKind.DERIVED_MAP),
    "GE one axis only": (ge([1000, 8, 0, 0], axes=("0.6",)), 1000.0, BSource.GE, FrameKind.UNKNOWN),
    "Siemens": (siemens(1000), 1000.0, BSource.SIEMENS, FrameKind.UNKNOWN),
    "Siemens direction": (siemens(1000, "*ep_b1000#7"), 1000.0, BSource.SIEMENS, FrameKind.DIRECTIONAL),
    "Siemens trace": (siemens(1000, "*ep_b1000t"), 1000.0, BSource.SIEMENS, FrameKind.TRACE),
    "Siemens name only": (siemens(None, "*ep_b1000t"), 1000.0, BSource.SIEMENS_NAME, FrameKind.TRACE),
    "Siemens name b=0": (siemens(None, "*ep_b0"), 0.0, BSource.SIEMENS_NAME, FrameKind.B0),
    "Siemens TRACEW": (
        siemens(1000, ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"]),
        1000.0,
        BSource.SIEMENS,
        FrameKind.TRACE,
    ),
    "Siemens b=0 beside TRACEW": (
        siemens(0, ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"]),
        0.0,
        BSource.SIEMENS,
        FrameKind.B0,
    ),
    "Philips trace": (philips(1000.0, "I", 33), 1000.0, BSource.PHILIPS, FrameKind.TRACE),
    "Philips b=0": (philips(0.0, "I", 33), 0.0, BSource.PHILIPS, FrameKind.B0),
    "Philips direction": (philips(1000.0, "O", 3), 1000.0, BSource.PHILIPS, FrameKind.DIRECTIONAL),
    "Philips bare": (philips(1000.0, "O"), 1000.0, BSource.PHILIPS, FrameKind.UNKNOWN),
    "UIH": (
        with_private(
            instance(), 0x65, "Image Private Header", x09=("FD", 929.75), x37=("FD", [0.6, 0.8, 0.0])
        ),
        929.75,
        BSource.UIH,
        FrameKind.DIRECTIONAL,
    ),
    "Canon": (
        instance(ImageComments="b=1000(0.445,-0.895,0.000)"),
        1000.0,
        BSource.CANON,
        FrameKind.DIRECTIONAL,
    ),
    "Canon without direction": (
        instance(ImageComments="b=1000"),
        1000.0,
        BSource.CANON,
        FrameKind.UNKNOWN,
    ),
    "a comment": (instance(ImageComments="b=1000 seems low"), None, BSource.NONE, FrameKind.UNKNOWN),
    "UN double": (
        with_private(instance(), 0x65, "Image Private Header", x09=("UN", struct.pack("<d", 929.75))),
        929.75,
        BSource.UIH,
        FrameKind.UNKNOWN,
    ),
    "UN float": (
        with_private(instance(), 0x2001, "Philips Imaging DD 001", x03=("UN", struct.pack("<f", 1000.0))),
        1000.0,
        BSource.PHILIPS,
        FrameKind.UNKNOWN,
    ),
    "UN text": (
        with_private(instance(), 0x43, "GEMS_PARM_01", x39=("UN", b"1000001000\\8\\0\\0 ")),
        1000.0,
        BSource.GE,
        FrameKind.UNKNOWN,
    ),
    "UN trace letter": (
        with_private(
            instance(), 0x2001, "Philips Imaging DD 001", x03=("FL", 1000.0), x04=("UN", b"I ")
        ),
        1000.0,
        BSource.PHILIPS,
        FrameKind.TRACE,
    ),
    "UN rubbish": (
        with_private(instance(), 0x43, "GEMS_PARM_01", x39=("UN", b"\xff\xfe\xfd")),
        None,
        BSource.NONE,
        FrameKind.UNKNOWN,
    ),
    "UN empty": (
        with_private(instance(), 0x43, "GEMS_PARM_01", x39=("UN", b"")),
        None,
        BSource.NONE,
        FrameKind.UNKNOWN,
    ),
    "UN dashes": (
        with_private(instance(), 0x43, "GEMS_PARM_01", x39=("UN", b"--")),
        None,
        BSource.NONE,
        FrameKind.UNKNOWN,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("dataset", "b_value", "source", "kind"), WEIGHTINGS.values(), ids=WEIGHTINGS.keys())
def test_each_way_of_writing_a_b_value_is_read(dataset, b_value, source, kind):
    frame = only_frame(dataset)
    assert (frame.b_value, frame.b_source, frame.kind) == (b_value, source, kind)


def test_the_standard_attribute_comes_before_the_vendors():
    dataset = ge([800, 8, 0, 0], flag=16, axes=("0.6", "0.8", "0"))
    dataset.DiffusionBValue = 1000.0
    frame = only_frame(dataset)
    assert (frame.b_value, frame.b_source) == (1000.0, BSource.STANDARD)
    assert frame.direction == (0.6, 0.8, 0.0)


def test_directions_are_told_apart_by_vector_or_number():
    assert only_frame(siemens(1000, "*ep_b1000#7")).direction_index == 7
    assert only_frame(philips(1000.0, "O", 3)).direction_index == 3
    assert only_frame(ge([1000, 8, 0, 0], flag=4)).direction_index == 4
    assert only_frame(instance(ImageComments="b=1500(0.445,-0.895,0.000)")).direction == (0.445, -0.895, 0.0)


def test_philips_direction_vector_is_read():
    dataset = philips(1000.0, "O", 3)
    with_private(
        dataset, 0x2005, "Philips MR Imaging DD 001", xb0=("FL", 0.6), xb1=("FL", 0.8), xb2=("FL", 0.0)
    )
    assert only_frame(dataset).direction == pytest.approx((0.6, 0.8, 0.0))


@pytest.mark.parametrize(
    "attributes",
    [
        {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "EADC_UNSPECIFIED"]},
        {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "FA"]},
        {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "TENSOR"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "P", "SE"]},
        {"SamplesPerPixel": 3},
        {
            "ImageType": ["DERIVED", "SECONDARY", "PROCESSED"],
            "SeriesDescription": "Apparent Diffusion Coefficient (mm2/s)",
        },
        {"ImageType": ["DERIVED", "SECONDARY", "PROCESSED"], "SeriesDescription": "eADC"},
    ],
)
def test_a_map_is_never_input_whatever_b_value_it_carries(attributes):
    header = read_header(instance(DiffusionBValue=1000.0, **attributes))
    assert header.is_derived_map
    assert header.frames[0].b_value == 1000.0


def test_a_derived_trace_with_adc_in_its_description_is_no_map():
    header = read_header(
        instance(
            DiffusionBValue=1000.0,
            ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"],
            SeriesDescription="dwi_ADC_TRACEW",
        )
    )
    assert header.frames[0].kind is FrameKind.TRACE
    assert not header.is_derived_map


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, False),
        ({"DiffusionBValue": 0.0}, False),
        ({"DiffusionBValue": 700.0}, True),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "DIFFUSION"]}, True),
        ({"AcquisitionContrast": "DIFFUSION"}, True),
        ({"SeriesDescription": "ep2d_diff_3scan_trace_p2"}, True),
        ({"ProtocolName": "DWI b1000"}, True),
        ({"SeriesDescription": "T1 difficult patient"}, False),
        ({"SeriesDescription": "fMRI Multiphase Des"}, False),
    ],
)
def test_what_looks_like_diffusion(attributes, expected):
    assert read_header(instance(**attributes)).looks_like_diffusion is expected


def test_geometry_is_read():
    frame = only_frame(instance())
    assert (frame.rows, frame.columns) == (64, 48)
    assert frame.position_lps_mm == (-10.0, -20.0, 30.0)
    assert frame.orientation == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    assert frame.pixel_spacing_mm == (2.0, 3.0)


@pytest.mark.parametrize(
    ("attributes", "field"),
    [
        ({"ImageOrientationPatient": None}, "orientation"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "orientation"),
        ({"ImageOrientationPatient": [2, 0, 0, 0, 1, 0]}, "orientation"),
        ({"ImagePositionPatient": [1, 2]}, "position_lps_mm"),
        ({"PixelSpacing": [0, 1]}, "pixel_spacing_mm"),
        ({"PixelSpacing": 1}, "pixel_spacing_mm"),
    ],
)
def test_impossible_geometry_counts_as_absent(attributes, field):
    assert getattr(only_frame(instance(**attributes)), field) is None


def test_slice_spacing_is_trusted_only_where_it_cannot_be_the_gap():
    assert read_header(instance(SpacingBetweenSlices=6, SliceThickness=5)).slice_spacing_mm == 6.0
    assert read_header(instance(SpacingBetweenSlices=1, SliceThickness=5)).slice_spacing_mm is None
    assert read_header(instance(SpacingBetweenSlices=6)).slice_spacing_mm is None


def test_promises_are_read():
    dataset = ge([1000, 8, 0, 0])
    with_private(dataset, 0x21, "GEMS_RELA_01", x4f=("SS", 18))
    with_private(dataset, 0x19, "GEMS_ACQU_01", xe0=("DS", "6.0"))
    dataset.ImagesInAcquisition = 126
    dataset.AcquisitionNumber = 2
    header = read_header(dataset)
    assert (header.promised_slices, header.promised_directions) == (18, 6)
    assert (header.images_in_acquisition, header.acquisition_number) == (126, 2)

    dataset = philips(1000.0, "I")
    with_private(dataset, 0x2001, "Philips Imaging DD 001", x18=("SL", 24))
    with_private(dataset, 0x2005, "Philips MR Imaging DD 005", x15=("SL", 33))
    header = read_header(dataset)
    assert (header.promised_slices, header.promised_directions) == (24, 33)


@pytest.mark.parametrize(
    ("protocol", "slices", "directions"),
    [
        (b"sSliceArray.lSize\t = \t25\nsDiffusion.lDiffDirections\t = \t12\n", 25, 12),
        (b"sSliceArray.lSize\t = \t25\nsDiffusion.lDiffDirections\t = \t3\n", 25, None),
        (b"sSliceArray.lSize\t = \t0\n", None, None),
        (b"sSliceArray.lSize\t = \t99999999\n", None, None),
    ],
)
def test_the_siemens_protocol_promises(protocol, slices, directions):
    dataset = with_private(siemens(1000), 0x29, "SIEMENS CSA HEADER", x20=("OB", protocol))
    header = read_header(dataset)
    assert (header.promised_slices, header.promised_directions) == (slices, directions)


def csa(**entries: list[str]) -> bytes:
    """A CSA image header as SV10 writes it."""
    parts = [b"SV10\4\3\2\1", struct.pack("<II", len(entries), 77)]
    for name, values in entries.items():
        parts.append(
            name.encode().ljust(64, b"\0") + struct.pack("<I4sIII", 1, b"FD\0\0", 4, len(values), 77)
        )
        for value in values:
            text = value.encode() + b"\0"
            parts.append(struct.pack("<4I", len(text), len(text), 77, len(text)))
            parts.append(text.ljust((len(text) + 3) // 4 * 4, b"\0"))
    return b"".join(parts)


def mosaic(count: int | None = 5, normal: float | None = None, **attributes: Any) -> Dataset:
    """96 x 144 pixels in a 3 x 3 grid of 32 x 48."""
    standard: dict[str, Any] = {
        "ImageType": ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE", "MOSAIC"],
        "Rows": 96,
        "Columns": 144,
        "SpacingBetweenSlices": 5.0,
        "PixelSpacing": [2.0, 2.0],
    }
    dataset = siemens(1000, **(standard | attributes))
    if count is not None:
        with_private(dataset, 0x19, "SIEMENS MR HEADER", x0a=("US", count))
    if normal is not None:
        header = csa(Other=["1"], SliceNormalVector=["0.0", "0.0", str(normal)], NumberOfImagesInMosaic=["5"])
        with_private(dataset, 0x29, "SIEMENS CSA HEADER", x10=("OB", header))
    return dataset


def test_a_mosaic_becomes_its_tiles():
    header = read_header(mosaic())
    assert header.is_self_contained
    assert [frame.index for frame in header.frames] == [0, 1, 2, 3, 4]
    assert [frame.tile_origin for frame in header.frames] == [(0, 0), (0, 48), (0, 96), (32, 0), (32, 48)]
    assert {(frame.rows, frame.columns) for frame in header.frames} == {(32, 48)}
    # The mosaic's corner lies (144 - 48) / 2 columns and (96 - 32) / 2 rows outside the tile's.
    assert header.frames[0].position_lps_mm == (-10.0 + 96.0, -20.0 + 64.0, 30.0)
    assert header.frames[4].position_lps_mm == (86.0, 44.0, 50.0)


def test_a_mosaic_grid_is_square_even_where_a_row_of_it_is_empty():
    assert [frame.tile_origin for frame in read_header(mosaic(6)).frames][5] == (32, 96)
    assert {frame.rows for frame in read_header(mosaic(6)).frames} == {32}


@pytest.mark.parametrize(("normal", "last_z"), [(1.0, 50.0), (-1.0, 10.0)])
def test_the_csa_normal_says_which_way_a_mosaic_runs(normal, last_z):
    position = read_header(mosaic(normal=normal)).frames[4].position_lps_mm
    assert position is not None
    assert position[2] == last_z


def test_the_csa_header_stands_in_for_a_missing_tile_count_and_b_value():
    dataset = instance(
        ImageType=["ORIGINAL", "PRIMARY", "MOSAIC"], Rows=96, Columns=144, SpacingBetweenSlices=5.0
    )
    entries = csa(B_value=["1000"], NumberOfImagesInMosaic=["5"])
    with_private(dataset, 0x29, "SIEMENS CSA HEADER", x10=("OB", entries))
    header = read_header(dataset)
    assert len(header.frames) == 5
    assert header.frames[0].b_value == 1000.0


@pytest.mark.parametrize(
    "dataset",
    [
        mosaic(count=None),
        mosaic(count=5000),
        mosaic(Rows=97),
        mosaic(SpacingBetweenSlices=None),
        mosaic(ImageOrientationPatient=None),
        instance(ImageType=["ORIGINAL", "PRIMARY", "M", "VFRAME"]),
    ],
)
def test_a_mosaic_that_cannot_be_cut_has_no_position(dataset):
    assert {frame.position_lps_mm for frame in read_header(dataset).frames} == {None}


@pytest.mark.parametrize("damaged", [b"SV10", b"", csa(B_value=["1000"])[:100], csa(B_value=["ä"])])
def test_a_damaged_csa_header_counts_as_absent(damaged):
    dataset = with_private(instance(), 0x29, "SIEMENS CSA HEADER", x10=("OB", damaged))
    assert only_frame(dataset).b_value is None


def test_uih_tiles_carry_their_own_positions():
    dataset = instance(ImageType=["ORIGINAL", "PRIMARY", "M", "VFRAME"], Rows=64, Columns=96)
    items = []
    for k in range(5):
        item = Dataset()
        item.ImagePositionPatient = [0.0, 1.0, 2.0 * k]
        items.append(item)
    with_private(dataset, 0x65, "Image Private Header", x09=("FD", 929.75), x51=("SQ", Sequence(items)))
    frames = read_header(dataset).frames
    assert [frame.tile_origin for frame in frames] == [(0, 0), (0, 32), (0, 64), (32, 0), (32, 32)]
    assert [frame.position_lps_mm for frame in frames] == [(0.0, 1.0, 2.0 * k) for k in range(5)]


def group(keyword: str, **attributes: Any) -> tuple[str, Sequence]:
    item = Dataset()
    for name, value in attributes.items():
        setattr(item, name, value)
    return keyword, Sequence([item])


def enhanced(frames: int = 3, sop_class: str = ENHANCED_MR, **attributes: Any) -> Dataset:
    """b=0 first, then the trace; geometry shared, position and diffusion in each frame."""
    shared = Dataset()
    for keyword, sequence in (
        group("PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        group("PixelMeasuresSequence", PixelSpacing=[2.0, 2.0]),
    ):
        setattr(shared, keyword, sequence)
    items = []
    for k in range(frames):
        own = Dataset()
        b_value, directionality = (0.0, "NONE") if k == 0 else (1000.0, "ISOTROPIC")
        for keyword, sequence in (
            group("PlanePositionSequence", ImagePositionPatient=[0.0, 0.0, 5.0 * k]),
            group("MRDiffusionSequence", DiffusionBValue=b_value, DiffusionDirectionality=directionality),
        ):
            setattr(own, keyword, sequence)
        items.append(own)
    return instance(
        SOPClassUID=sop_class,
        SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence(items),
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        PixelSpacing=None,
        **attributes,
    )


def test_enhanced_frames_combine_their_own_and_the_shared_groups():
    header = read_header(enhanced())
    assert [frame.kind for frame in header.frames] == [FrameKind.B0, FrameKind.TRACE, FrameKind.TRACE]
    assert [frame.index for frame in header.frames] == [0, 1, 2]
    assert header.frames[2].position_lps_mm == (0.0, 0.0, 10.0)
    assert header.frames[2].orientation == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    assert header.is_self_contained


def test_part_of_a_concatenation_does_not_stand_alone():
    assert not read_header(enhanced(ConcatenationUID="1.2.9")).is_self_contained


def test_frame_type_decides_where_frames_differ():
    dataset = enhanced()
    keyword, sequence = group(
        "MRImageFrameTypeSequence", FrameType=["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]
    )
    setattr(dataset.PerFrameFunctionalGroupsSequence[1], keyword, sequence)
    kinds = [frame.kind for frame in read_header(dataset).frames]
    assert kinds == [FrameKind.B0, FrameKind.DERIVED_MAP, FrameKind.TRACE]


def test_enhanced_colour_is_a_map():
    assert read_header(enhanced(sop_class=ENHANCED_COLOR, SamplesPerPixel=3)).is_derived_map


def test_enhanced_without_functional_groups_has_no_frames():
    assert read_header(instance(SOPClassUID=ENHANCED_MR)).frames == ()


@pytest.mark.parametrize(
    "sop_class",
    [
        "1.2.840.10008.5.1.4.1.1.88.33",
        "1.2.840.10008.5.1.4.1.1.11.1",
        "1.2.840.10008.5.1.4.1.1.66",
        "1.2.840.10008.5.1.4.1.1.7",
    ],
)
def test_what_is_no_mr_image_has_no_frames(sop_class):
    header = read_header(instance(SOPClassUID=sop_class, DiffusionBValue=1000.0))
    assert header.frames == ()
    assert not header.looks_like_diffusion
    assert not header.is_derived_map


@pytest.mark.parametrize(
    "keyword", ["SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID"]
)
@pytest.mark.parametrize("uid", [None, "", "1.2.x", "../../etc", "1..2", ".1", "1." + "2" * 70])
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.filterwarnings("ignore:The value length")
def test_a_bad_uid_is_refused_without_repeating_it(keyword, uid):
    with pytest.raises(HeaderError, match=r"uid is (missing|not a UID)") as error:
        read_header(instance(**{keyword: uid}))
    assert not uid or uid not in str(error.value)


@pytest.mark.parametrize(
    "dataset", [instance(), ge([1000, 8, 0, 0]), siemens(1000, "*ep_b1000#7"), mosaic(), enhanced(40)]
)
def test_json_gives_back_the_same_header(dataset):
    header = read_header(dataset)
    assert header_from_json(to_json(header)) == header


def test_json_of_a_large_enhanced_instance_is_compact():
    assert len(to_json(read_header(enhanced(500)))) < 500 * 120


numbers = st.floats(-1e6, 1e6)
frames = st.builds(
    DwiFrame,
    index=st.integers(0, 5000),
    tile_origin=st.none() | st.tuples(st.integers(0, 999), st.integers(0, 999)),
    rows=st.integers(0, 9999),
    columns=st.integers(0, 9999),
    position_lps_mm=st.none() | st.tuples(numbers, numbers, numbers),
    orientation=st.none() | st.tuples(*[numbers] * 6),
    pixel_spacing_mm=st.none() | st.tuples(numbers, numbers),
    b_value=st.none() | numbers,
    b_source=st.sampled_from(BSource),
    kind=st.sampled_from(FrameKind),
    direction=st.none() | st.tuples(numbers, numbers, numbers),
    direction_index=st.none() | st.integers(0, 999),
)
headers = st.builds(
    InstanceHeader,
    sop_instance_uid=st.just("1.2.3.4"),
    sop_class_uid=st.just(MR),
    series_instance_uid=st.just("1.2.3"),
    study_instance_uid=st.just("1.2"),
    modality=st.text(max_size=16),
    frames=st.lists(frames, max_size=6).map(tuple),
    acquisition_number=st.none() | st.integers(),
    is_self_contained=st.booleans(),
    looks_like_diffusion=st.booleans(),
    promised_slices=st.none() | st.integers(1, 999),
    promised_directions=st.none() | st.integers(1, 999),
    images_in_acquisition=st.none() | st.integers(0, 9999),
    temporal_positions=st.none() | st.integers(0, 9999),
    slice_spacing_mm=st.none() | numbers,
)


@given(headers)
@settings(max_examples=100, deadline=None)
def test_any_header_survives_json(header):
    assert header_from_json(to_json(header)) == header


READ_KEYWORDS = """
    Modality ImageType SequenceName SeriesDescription ProtocolName ImageComments DiffusionBValue
    SamplesPerPixel DiffusionDirectionality DiffusionAnisotropyType DiffusionGradientOrientation
    DiffusionGradientDirectionSequence ImagesInAcquisition AcquisitionNumber SpacingBetweenSlices
    SliceThickness Rows Columns PixelSpacing ImagePositionPatient ImageOrientationPatient ConcatenationUID
    AcquisitionContrast SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence
"""
PRIVATE_TAGS = """
    00430010 00431039 00431030 00190010 0019100C 0019100D 0019100E 0019100A 00290010 00291010 00291020
    20010010 20011003 20011004 20011018 00650010 00651009 00651037 00651051
"""
READ_TAGS = [int(Tag(keyword)) for keyword in READ_KEYWORDS.split()]
READ_TAGS += [int(number, 16) for number in PRIVATE_TAGS.split()]
CREATORS = [b"GEMS_PARM_01", b"SIEMENS MR HEADER ", b"SIEMENS CSA HEADER", b"Image Private Header"]
RAW = st.binary(max_size=40) | st.sampled_from([*CREATORS, b"MOSAIC", b"1\\2"])
VRS = ["IS", "DS", "FD", "FL", "CS", "LO", "SQ", "UN", "OB", "US", "SL", "UI", "DA", "ZZ"]


@given(
    st.dictionaries(
        st.sampled_from(READ_TAGS),
        st.tuples(st.sampled_from(VRS), RAW),
        max_size=12,
    ),
    st.sampled_from([MR, ENHANCED_MR]),
)
@settings(max_examples=300, deadline=None)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_content_makes_reading_fail(elements, sop_class):
    content: dict[BaseTag, DataElement | RawDataElement] = {
        element.tag: element for element in instance(SOPClassUID=sop_class)
    }
    for number, (vr, raw) in elements.items():
        # As it came off the wire: pydicom decodes it only when it is asked for.
        content[Tag(number)] = RawDataElement(Tag(number), vr, len(raw), raw, 0, False, True)
    dataset = Dataset(content)
    header = read_header(dataset)
    assert header_from_json(to_json(header)) == header


def test_a_header_made_by_hand_is_checked_too():
    with pytest.raises(HeaderError, match="sop_instance_uid"):
        replace(read_header(instance()), sop_instance_uid="no")


# Where private elements and old headers lose what says what they are.


def test_a_direction_of_none_without_a_b_value_is_b_zero():
    frame = only_frame(instance(DiffusionDirectionality="NONE"))
    assert (frame.b_value, frame.kind) == (None, FrameKind.B0)


def older_csa(b_value: str) -> bytes:
    """The first version of the CSA header: no magic, lengths with the first entry's count added."""
    entries = [("Phase", ["x"]), ("B_value", [b_value])]
    out = struct.pack("<II", len(entries), 77)
    for name, values in entries:
        out += name.encode().ljust(64, b"\0") + struct.pack("<I4siII", 1, b"IS\0\0", 6, len(values), 77)
        for value in values:
            raw = value.encode() + b"\0"
            out += struct.pack("<IIII", len(raw) + 1, 0, 77, 0) + raw.ljust((len(raw) + 3) // 4 * 4, b"\0")
    return out


def test_the_older_csa_header_is_read():
    dataset = with_private(instance(), 0x29, "SIEMENS CSA HEADER", x10=("OB", older_csa("1000")))
    frame = only_frame(dataset)
    assert (frame.b_value, frame.b_source) == (1000.0, BSource.SIEMENS_CSA)


def test_a_private_element_is_not_taken_from_a_block_that_somebody_else_reserved():
    dataset = instance(Manufacturer="SIEMENS")
    with_private(dataset, 0x19, "OTHER", x0c=("IS", 1000))
    assert only_frame(dataset).b_value is None


def test_a_private_sequence_that_became_bytes_is_no_sequence_when_damaged():
    dataset = instance(ImageType=["ORIGINAL", "PRIMARY", "VFRAME"])
    with_private(dataset, 0x65, "Image Private Header", x09=("FD", 1000.0), x51=("UN", b"\xfe\xff\x00\xe0"))
    assert only_frame(dataset).position_lps_mm is None


@pytest.mark.parametrize("vr", ["DS", "UN", None])
def test_a_value_of_megabytes_is_not_read(vr):
    dataset = instance()
    for tag in (Tag("DiffusionBValue"), Tag("PerFrameFunctionalGroupsSequence"), Tag(0x0019, 0x100C)):
        raw = b"1\\" * 2**17
        dataset._dict[tag] = RawDataElement(tag, vr, len(raw), raw, 0, vr is None, True)
    dataset.Manufacturer = "SIEMENS"
    assert only_frame(dataset).b_value is None


def test_headers_of_an_earlier_version_are_still_read():
    header = read_header(siemens(1000))
    text = to_json(header)
    assert header_from_json(text.replace("null,null,null]", "null,null]")) == header


def test_what_contradicts_survives_json():
    dataset = siemens(1000, DiffusionBValue=700.0)
    header = read_header(dataset)
    assert header.frames[0].contradiction == (BSource.SIEMENS, 1000.0)
    assert header_from_json(to_json(header)) == header
