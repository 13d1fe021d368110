"""Which images make the volume, why a series is rejected, and what the volume holds."""

import itertools
import random
import re
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from triage.core.diffusion import InstanceHeader, read_header
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

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
ROWS, COLUMNS = 12, 10
X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)

serial = itertools.count(1)


def image(
    z: float,
    b_value: float | None = 1000.0,
    *,
    direction: tuple[float, float, float] | None = None,
    is_trace: bool = False,
    pixels_YX: np.ndarray | None = None,
    **attributes: object,
) -> Dataset:
    """A classic image at height z; pixel values tell the slice, row and column unless given."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = MR
    dataset.SOPInstanceUID = f"1.2.3.{next(serial)}"
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = "1.2.3", "1.2"
    dataset.Modality = "MR"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "DIFFUSION"]
    dataset.ImagePositionPatient = [-20.0, -24.0, z]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [4.0, 4.0]
    if b_value is not None:
        dataset.DiffusionBValue = b_value
    if direction is not None:
        dataset.DiffusionGradientOrientation = list(direction)
    if is_trace:
        dataset.DiffusionDirectionality = "ISOTROPIC"
    if pixels_YX is None:
        pixels_YX = 1000 + round(z * 10) + np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return with_pixels(dataset, pixels_YX)


def with_pixels(dataset: Dataset, pixels: np.ndarray) -> Dataset:
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        dataset.NumberOfFrames = pixels.shape[0]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    is_signed = bool(pixels.min() < 0)
    dataset.PixelRepresentation = int(is_signed)
    dataset.PixelData = pixels.astype("<i2" if is_signed else "<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def stack(heights: Iterable[float] = (0, 5, 10, 15), **how: object) -> list[Dataset]:
    return [image(z, **how) for z in heights]  # type: ignore[arg-type]


def series(*parts: list[Dataset]) -> list[InstanceHeader]:
    return [read_header(dataset) for part in parts for dataset in part]


def judged(datasets: list[Dataset]) -> DwiVolume | Rejection:
    plan = choose(series(datasets))
    assert isinstance(plan, VolumePlan), plan
    return assemble(plan, {dataset.SOPInstanceUID: dataset for dataset in datasets})


def volume(datasets: list[Dataset]) -> DwiVolume:
    result = judged(datasets)
    assert isinstance(result, DwiVolume), result
    return result


def tilted(degrees: float) -> list[float]:
    """An axial image turned about the left-right axis."""
    angle = np.radians(degrees)
    return [1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle))]


def tilted_stack(degrees: float) -> list[Dataset]:
    angle = np.radians(degrees)
    normal = np.array([0, -np.sin(angle), np.cos(angle)])
    return [
        image(0, ImageOrientationPatient=tilted(degrees), ImagePositionPatient=list(5.0 * k * normal))
        for k in range(4)
    ]


# What is chosen.


def test_a_trace_is_preferred_to_directions():
    trace = stack(is_trace=True)
    plan = choose(series(stack(b_value=0.0), stack(direction=X), stack(direction=Y), trace))
    assert isinstance(plan, VolumePlan)
    assert plan.kind is VolumeKind.TRACE
    assert plan.source_sop_instance_uids == tuple(sorted(d.SOPInstanceUID for d in trace))
    assert (plan.b_value, plan.slice_count, plan.direction_count) == (1000.0, 4, 1)
    assert plan.spacing_mm == pytest.approx((5.0, 4.0, 4.0))


def test_directions_are_averaged_where_there_is_no_trace():
    plan = choose(series(stack(b_value=0.0), stack(direction=X), stack(direction=Y), stack(direction=Z)))
    assert isinstance(plan, VolumePlan)
    assert (plan.kind, plan.direction_count) == (VolumeKind.DIRECTIONAL_MEAN, 3)


def test_directions_stand_in_for_an_incomplete_trace():
    plan = choose(series(stack((0, 5, 15), is_trace=True), stack(direction=X), stack(direction=Y)))
    assert isinstance(plan, VolumePlan)
    assert plan.kind is VolumeKind.DIRECTIONAL_MEAN


def test_an_unlabelled_image_alone_at_its_position_is_a_trace():
    plan = choose(series(stack(b_value=0.0), stack()))
    assert isinstance(plan, VolumePlan)
    assert plan.kind is VolumeKind.TRACE


def test_unlabelled_images_several_at_each_position_are_directions():
    plan = choose(series(stack(), stack(), stack()))
    assert isinstance(plan, VolumePlan)
    assert (plan.kind, plan.direction_count) == (VolumeKind.DIRECTIONAL_MEAN, 3)


@pytest.mark.parametrize(
    ("present", "chosen"), [((800, 1000), 1000), ((900, 1150), 900), ((1200, 2000), 1200)]
)
def test_the_b_value_nearest_1000_is_judged(present, chosen):
    plan = choose(series(*(stack(b_value=float(b), is_trace=True) for b in (0, *present))))
    assert isinstance(plan, VolumePlan)
    assert plan.b_value == chosen


def test_b_values_of_one_shell_belong_together():
    shell = [image(z, b, direction=d) for z in (0, 5, 10) for b, d in ((995.0, X), (1000.0, Y), (1005.0, Z))]
    plan = choose(series(shell))
    assert isinstance(plan, VolumePlan)
    assert (plan.b_value, plan.direction_count) == (1000.0, 3)


def test_the_window_is_a_parameter():
    headers = series(stack(b_value=0.0), stack(b_value=700.0))
    assert isinstance(choose(headers), Rejection)
    assert isinstance(choose(headers, b_window=(600.0, 1400.0)), VolumePlan)


def test_an_instance_that_came_twice_counts_once():
    headers = series(stack())
    assert choose(headers + headers) == choose(headers)


@pytest.mark.parametrize(
    "datasets",
    [
        [],
        stack(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33"),
        stack(ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]),
        stack(b_value=None, ImageType=["ORIGINAL", "PRIMARY", "M", "SE"], SeriesDescription="t1_mprage"),
        stack(b_value=0.0, ImageType=["ORIGINAL", "PRIMARY", "M", "SE"]),
        stack(ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "FA"])
        + stack(b_value=None, ImageType=["ORIGINAL", "PRIMARY", "M"]),
    ],
    ids=["nothing", "report", "ADC", "T1", "b=0 alone", "FA beside T1"],
)
def test_what_is_not_diffusion_is_left_alone(datasets):
    assert isinstance(choose(series(datasets)), NotDiffusion)


REJECTIONS: dict[str, tuple[Callable[[], list[Dataset]], Reason, str]] = {
    "only b=0 and 1500": (
        lambda: stack(b_value=0.0) + stack(b_value=1500.0, is_trace=True),
        Reason.NO_B1000,
        "found b=0, 1500; none within 800 to 1200",
    ),
    "only b=0": (lambda: stack(b_value=0.0), Reason.NO_B1000, "found b=0;"),
    "no b-value": (lambda: stack(b_value=None), Reason.B_VALUE_UNKNOWN, "4 of 4 images carry no b-value"),
    "b=0 and no b-value": (
        lambda: stack(b_value=0.0) + stack(b_value=None, is_trace=True),
        Reason.B_VALUE_UNKNOWN,
        "4 of 8 images carry no b-value that we can read, others b=0",
    ),
    "a stray unknown beside b=2000": (
        lambda: stack(b_value=2000.0) + stack((0,), b_value=None),
        Reason.NO_B1000,
        "found b=2000",
    ),
    "one slice": (lambda: stack((0,)), Reason.INCOMPLETE, "b=1000: 1 position$"),
    "a gap": (lambda: stack((32, 37, 47, 52)), Reason.INCOMPLETE, "4 positions, gap at z = 42.0 mm"),
    "two gaps": (lambda: stack((0, 5, 20, 25)), Reason.INCOMPLETE, "gap at z = 10.0 mm"),
    "every other slice": (
        lambda: stack((0, 10, 20), SpacingBetweenSlices=5, SliceThickness=4),
        Reason.INCOMPLETE,
        "3 positions, gap at z = 5.0 mm",
    ),
    "uneven": (
        lambda: stack((0, 5, 12, 17)),
        Reason.UNEVEN_SPACING,
        "7.00 mm above z = 5.0 mm, 5.00 mm elsewhere",
    ),
    "nearly one position": (lambda: stack((0, 5, 5.3, 10)), Reason.UNEVEN_SPACING, "slice distance"),
    "doubled trace": (
        lambda: stack(is_trace=True) + stack((5,), is_trace=True),
        Reason.MIXED_GEOMETRY,
        "2 images at z = 5.0 mm show the same",
    ),
    "doubled direction": (
        lambda: stack(direction=X) + stack(direction=Y) + stack((5,), direction=X),
        Reason.MIXED_GEOMETRY,
        "3 images at z = 5.0 mm show the same",
    ),
    "doubled unlabelled": (
        lambda: stack() + stack((5,)),
        Reason.MIXED_GEOMETRY,
        "2 images at z = 5.0 mm show the same",
    ),
    "missing direction": (
        lambda: stack(direction=X) + stack((0, 5, 10), direction=Y),
        Reason.INCOMPLETE,
        "1 of 2 directions at z = 15.0 mm",
    ),
    "missing unlabelled": (
        lambda: stack() + stack() + stack((0, 5, 10)),
        Reason.INCOMPLETE,
        "2 of 3 directions at z = 15.0 mm",
    ),
    "different directions": (
        lambda: stack((0, 5), direction=X) + stack((10, 15), direction=Y),
        Reason.INCOMPLETE,
        "1 of 2 directions at z = 0.0 mm",
    ),
    "mixed matrix": (
        lambda: stack() + stack((20,), pixels_YX=np.ones((8, 8), int)),
        Reason.MIXED_GEOMETRY,
        "matrices 12 x 10 and 8 x 8",
    ),
    "mixed orientation": (
        lambda: stack() + stack((20,), ImageOrientationPatient=tilted(10)),
        Reason.MIXED_GEOMETRY,
        "orientations",
    ),
    "mixed pixel spacing": (
        lambda: stack() + stack((20,), PixelSpacing=[3, 3]),
        Reason.MIXED_GEOMETRY,
        r"pixel spacings 4\\4 and 3\\3 mm",
    ),
    "sheared": (
        lambda: [image(5.0 * k, ImagePositionPatient=[2.0 * k, 0, 5.0 * k]) for k in range(4)],
        Reason.MIXED_GEOMETRY,
        "shifted sideways by 6.0 mm",
    ),
    "coronal": (
        lambda: [
            image(0, ImageOrientationPatient=[1, 0, 0, 0, 0, -1], ImagePositionPatient=[0, 5 * k, 0])
            for k in range(4)
        ],
        Reason.NOT_AXIAL,
        "90° off axial",
    ),
    "steep": (lambda: tilted_stack(50), Reason.NOT_AXIAL, "50° off axial, at most 45°"),
    "no position": (
        lambda: stack() + stack((20,), ImagePositionPatient=None),
        Reason.UNREADABLE,
        "1 of 5 images lack position",
    ),
    "no matrix": (
        lambda: [without_rows(dataset) for dataset in stack()],
        Reason.UNREADABLE,
        "4 of 4 images lack",
    ),
}


def without_rows(dataset: Dataset) -> Dataset:
    del dataset.Rows
    return dataset


@pytest.mark.parametrize("name", REJECTIONS)
def test_a_series_that_cannot_be_judged_says_why(name):
    build, reason, detail = REJECTIONS[name]
    rejection = choose(series(build()))
    assert isinstance(rejection, Rejection), rejection
    assert rejection.reason is reason
    assert re.search(detail, rejection.detail), rejection.detail


def promising(slices: int, heights: Iterable[float]) -> list[Dataset]:
    datasets = stack(heights, is_trace=True)
    for dataset in datasets:
        dataset.private_block(0x21, "GEMS_RELA_01", create=True).add_new(0x4F, "SS", slices)
    return datasets


def test_fewer_slices_than_promised_are_incomplete():
    rejection = choose(series(promising(5, (0, 5, 10, 15))))
    assert rejection == Rejection(Reason.INCOMPLETE, "b=1000: 4 of 5 positions")


def test_a_gap_is_named_beside_the_promise():
    rejection = choose(series(promising(5, (0, 5, 15, 20))))
    assert rejection == Rejection(Reason.INCOMPLETE, "b=1000: 4 of 5 positions, gap at z = 10.0 mm")


def test_no_text_of_the_header_gets_into_a_detail():
    secret = "DOE^JANE diffusion"
    rejection = choose(series(stack(b_value=None, SeriesDescription=secret, PatientName=secret)))
    assert isinstance(rejection, Rejection)
    assert "DOE" not in rejection.detail


# What the volume holds.


def test_slices_are_ordered_by_position_whatever_the_order_of_arrival():
    datasets = stack((15, 0, 10, 5))
    assert volume(datasets).voxels_ZYX[:, 0, 0].tolist() == [1000.0, 1050.0, 1100.0, 1150.0]


def test_the_affine_names_the_place_of_each_voxel():
    result = volume(stack((3, 8, 13)))
    assert result.affine_lps @ [0, 0, 0, 1] == pytest.approx([-20, -24, 3, 1])
    assert result.affine_lps @ [2, 1, 2, 1] == pytest.approx([-12, -20, 13, 1])
    assert result.spacing_mm == pytest.approx((5.0, 4.0, 4.0))


def test_the_mean_over_directions_is_geometric():
    values = (100, 200, 400)
    datasets = [
        image(z, direction=d, pixels_YX=np.full((ROWS, COLUMNS), value))
        for z in (0, 5)
        for d, value in zip((X, Y, Z), values, strict=True)
    ]
    assert volume(datasets).voxels_ZYX == pytest.approx(200.0)


def test_a_voxel_without_signal_in_one_direction_is_zero():
    empty = np.zeros((ROWS, COLUMNS), int)
    datasets = stack(direction=X) + [image(z, direction=Y, pixels_YX=empty) for z in (0, 5, 10, 15)]
    assert volume(datasets).voxels_ZYX.max() == 0.0


def test_negative_values_count_as_no_signal_in_a_mean():
    negative = np.full((ROWS, COLUMNS), -5)
    datasets = stack(direction=X) + [image(z, direction=Y, pixels_YX=negative) for z in (0, 5, 10, 15)]
    assert volume(datasets).voxels_ZYX.max() == 0.0


def test_signed_pixels_keep_their_sign_in_a_trace():
    pixels = np.full((ROWS, COLUMNS), -5)
    assert volume([image(z, pixels_YX=pixels) for z in (0, 5)]).voxels_ZYX.min() == -5.0


def test_values_are_rescaled_image_by_image():
    datasets = stack((0, 5))
    datasets[0].RescaleSlope, datasets[0].RescaleIntercept = 2.0, -100.0
    datasets[1].RescaleSlope = 0.5
    assert volume(datasets).voxels_ZYX[:, 0, 0].tolist() == [1900.0, 525.0]


@pytest.mark.parametrize(("limit", "zeros"), [(None, 1), (1003, 4)])
def test_padding_is_zero(limit, zeros):
    datasets = stack((0, 5))
    datasets[0].PixelPaddingValue = 1000
    datasets[0].RescaleIntercept = 7.0
    if limit is not None:
        datasets[0].PixelPaddingRangeLimit = limit
    assert (volume(datasets).voxels_ZYX[0] == 0).sum() == zeros


def test_compressed_pixels_are_decoded():
    plain = stack((0, 5), pixels_YX=np.eye(ROWS, COLUMNS, dtype=int) * 300)
    expected = volume(plain).voxels_ZYX
    for dataset in plain:
        dataset.compress(RLELossless, generate_instance_uid=False)
    assert np.array_equal(volume(plain).voxels_ZYX, expected)


def damage(**changes: object) -> Callable[[Dataset], None]:
    def apply(dataset: Dataset) -> None:
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)

    return apply


def drop(keyword: str) -> Callable[[Dataset], None]:
    return lambda dataset: delattr(dataset, keyword)


def compressed_rubbish(dataset: Dataset) -> None:
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.PixelData = dataset.PixelData[:40]


def coloured(dataset: Dataset) -> None:
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation = "RGB"
    dataset.PixelData = dataset.PixelData * 3


@pytest.mark.parametrize(
    ("spoil", "detail"),
    [
        (drop("PixelData"), "no PixelData"),
        (drop("file_meta"), "description of the pixels is damaged"),
        (drop("Rows"), "description of the pixels is damaged"),
        (damage(PixelData=b"\0\0"), "PixelData holds 2 bytes, expected 240"),
        (damage(Rows=0), "0 x 10 pixels"),
        (damage(Rows=60000, Columns=60000), "60000 x 60000 pixels"),
        (damage(BitsStored=99), "cannot be decoded"),
        (damage(RescaleSlope=0.0), "rescale slope 0"),
        (damage(RescaleSlope=-1.0), "rescale slope -1"),
        (damage(Rows=10, Columns=12), r"expected 12 x 10 pixels, got \(10, 10\)"),
        (compressed_rubbish, "cannot be decoded"),
        (coloured, "one grey value"),
    ],
)
def test_pixels_that_cannot_be_read_are_a_rejection(spoil, detail):
    datasets = stack((0, 5))
    plan = choose(series(datasets))
    assert isinstance(plan, VolumePlan)
    spoil(datasets[1])
    result = assemble(plan, {dataset.SOPInstanceUID: dataset for dataset in datasets})
    assert isinstance(result, Rejection)
    assert result.reason is Reason.UNREADABLE
    assert re.search(detail, result.detail), result.detail


def test_an_instance_that_is_gone_is_a_rejection():
    plan = choose(series(stack((0, 5))))
    assert isinstance(plan, VolumePlan)
    assert assemble(plan, {}) == Rejection(Reason.UNREADABLE, "an instance of the volume is no longer there")


def test_an_absurd_size_is_refused_before_memory_is_asked_for():
    datasets = stack(tuple(range(0, 40, 5)))
    for dataset in datasets:
        dataset.Rows = dataset.Columns = 60000
    plan = choose(series(datasets))
    assert isinstance(plan, VolumePlan)
    result = assemble(plan, {dataset.SOPInstanceUID: dataset for dataset in datasets})
    assert result == Rejection(Reason.UNREADABLE, "8 slices of 60000 x 60000 pixels need more than 512 MiB")


# Enhanced MR and mosaics.


def item(**attributes: object) -> Sequence:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return Sequence([dataset])


def enhanced(slope: float | None = None, shared_slope: float | None = None) -> Dataset:
    """b=0 and trace alternate; frame k holds the value 10 k + 1."""
    frames = []
    for k in range(6):
        own = Dataset()
        own.PlanePositionSequence = item(ImagePositionPatient=[0.0, 0.0, 5.0 * (k // 2)])
        own.MRDiffusionSequence = item(
            DiffusionBValue=1000.0 * (k % 2), DiffusionDirectionality="ISOTROPIC" if k % 2 else "NONE"
        )
        if slope is not None:
            own.PixelValueTransformationSequence = item(RescaleSlope=slope * (k + 1), RescaleIntercept=1.0)
        frames.append(own)
    shared = Dataset()
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.PixelMeasuresSequence = item(PixelSpacing=[2.0, 2.0])
    if shared_slope is not None:
        shared.PixelValueTransformationSequence = item(RescaleSlope=shared_slope, RescaleIntercept=0.0)
    dataset = image(0, None, SOPClassUID=ENHANCED_MR)
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return with_pixels(dataset, np.arange(6)[:, None, None] * 10 + np.ones((6, 4, 4), int))


@pytest.mark.parametrize(
    ("dataset", "values"),
    [
        (enhanced(), [11, 31, 51]),
        (enhanced(shared_slope=2.0), [22, 62, 102]),
        (enhanced(slope=0.5, shared_slope=9.0), [11 + 1, 31 * 2 + 1, 51 * 3 + 1]),
    ],
)
def test_only_the_chosen_frames_of_an_enhanced_instance_are_used(dataset, values):
    assert volume([dataset]).voxels_ZYX[:, 0, 0].tolist() == values


def test_an_enhanced_instance_with_fewer_frames_than_announced_is_unreadable():
    dataset = enhanced()
    plan = choose(series([dataset]))
    assert isinstance(plan, VolumePlan)
    with_pixels(dataset, np.ones((2, 4, 4), int))
    result = assemble(plan, {dataset.SOPInstanceUID: dataset})
    assert isinstance(result, Rejection)
    assert result.reason is Reason.UNREADABLE


def test_tiles_of_a_mosaic_become_slices():
    pixels = np.kron(np.arange(9).reshape(3, 3), np.ones((16, 16), int))
    dataset = image(
        0, pixels_YX=pixels, SpacingBetweenSlices=5.0, ImageType=["ORIGINAL", "PRIMARY", "MOSAIC"]
    )
    dataset.private_block(0x19, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 7)
    result = volume([dataset])
    assert result.voxels_ZYX.shape == (7, 16, 16)
    assert result.voxels_ZYX.mean(axis=(1, 2)).tolist() == [0, 1, 2, 3, 4, 5, 6]


# Order and orientation.


@given(st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_the_order_of_arrival_changes_nothing(shuffler: random.Random):
    datasets = list(DIRECTIONS)
    shuffler.shuffle(datasets)
    result = volume(datasets)
    assert np.array_equal(result.voxels_ZYX, EXPECTED.voxels_ZYX)
    assert np.array_equal(result.affine_lps, EXPECTED.affine_lps)
    assert result.source_sop_instance_uids == EXPECTED.source_sop_instance_uids


DIRECTIONS = [
    image(z, b, direction=d, pixels_YX=np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) + 7 * n)
    for z in (0, 5, 10)
    for n, (b, d) in enumerate(((0.0, None), (1000.0, X), (1000.0, Y), (1000.0, Z)))
]
EXPECTED = volume(DIRECTIONS)

TURNS = [
    (column, row)
    for column, row in itertools.permutations(((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0)), 2)
    if np.dot(column, row) == 0
]


@pytest.mark.parametrize(("column", "row"), TURNS)
@pytest.mark.parametrize("tilt_deg", [0.0, 17.0])
def test_any_turn_of_rows_and_columns_gives_the_same_volume_in_space(column, row, tilt_deg):
    angle = np.radians(tilt_deg)
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    step_column, step_row = tilt @ column, tilt @ row
    upwards = tilt @ (0, 0, 1)
    datasets, brightest = [], None
    for k in range(3):
        position = np.array([3.0, 4.0, 5.0]) + 6.0 * k * upwards
        pixels = np.ones((ROWS, COLUMNS), int)
        if k == 1:
            pixels[2, 7] = 9
            brightest = position + 2 * 3.0 * step_row + 7 * 2.0 * step_column
        datasets.append(
            image(
                0,
                pixels_YX=pixels,
                ImagePositionPatient=[float(v) for v in position],
                ImageOrientationPatient=[float(v) for v in (*step_column, *step_row)],
                PixelSpacing=[3.0, 2.0],
            )
        )
    result = volume(datasets)
    z, y, x = np.unravel_index(int(result.voxels_ZYX.argmax()), result.voxels_ZYX.shape)
    assert (result.affine_lps @ [x, y, z, 1])[:3] == pytest.approx(brightest)
    assert (np.diag(result.affine_lps)[:3] > 0).all()
    assert result.voxels_ZYX.flags["C_CONTIGUOUS"]


@given(st.floats(-40, 40), st.floats(-44, 44), st.integers(2, 6), st.floats(1, 8))
@settings(max_examples=40, deadline=None)
def test_an_oblique_stack_keeps_its_spacing_and_corners(spin_deg, tilt_deg, slices, spacing):
    spin, tilt = np.radians(spin_deg), np.radians(tilt_deg)
    turn = np.array([[np.cos(spin), -np.sin(spin), 0], [np.sin(spin), np.cos(spin), 0], [0, 0, 1]])
    lean = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    axes = lean @ turn
    datasets = [
        image(
            0,
            pixels_YX=np.full((ROWS, COLUMNS), 100 + k),
            ImagePositionPatient=[f"{v:.10f}" for v in k * spacing * axes[:, 2]],
            ImageOrientationPatient=[f"{v:.10f}" for v in (*axes[:, 0], *axes[:, 1])],
        )
        for k in range(slices)
    ]
    result = volume(datasets)
    assert result.spacing_mm == pytest.approx((spacing, 4.0, 4.0), abs=1e-6)
    assert result.voxels_ZYX[:, 0, 0].tolist() == [100.0 + k for k in range(slices)]
    corners = {(0.0, 0.0), (0.0, ROWS - 1.0), (COLUMNS - 1.0, 0.0), (COLUMNS - 1.0, ROWS - 1.0)}
    expected = sorted(tuple(np.round(4 * c * axes[:, 0] + 4 * r * axes[:, 1], 4)) for c, r in corners)
    rows, columns = result.voxels_ZYX.shape[1:]
    found = [result.affine_lps @ [c, r, 0, 1] for c in (0, columns - 1) for r in (0, rows - 1)]
    assert np.allclose(sorted(tuple(np.round(place[:3], 4)) for place in found), expected, atol=1e-3)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=9, unique=True))
@settings(max_examples=60, deadline=None)
def test_a_missing_slice_is_never_judged(present):
    result = choose(series(stack([5.0 * k for k in present])))
    is_even = len({b - a for a, b in itertools.pairwise(sorted(present))}) == 1
    assert isinstance(result, VolumePlan) == is_even
    if isinstance(result, Rejection):
        assert result.reason in (Reason.INCOMPLETE, Reason.UNEVEN_SPACING)


def test_a_volume_checks_itself():
    affine = np.eye(4)
    with pytest.raises(ValueError, match="3-D float32"):
        DwiVolume(
            voxels_ZYX=np.zeros((2, 2), np.float32),
            affine_lps=affine,
            b_value=1000.0,
            kind=VolumeKind.TRACE,
            source_sop_instance_uids=(),
        )
    with pytest.raises(ValueError, match="4x4"):
        DwiVolume(
            voxels_ZYX=np.zeros((2, 2, 2), np.float32),
            affine_lps=affine[:3],
            b_value=1000.0,
            kind=VolumeKind.TRACE,
            source_sop_instance_uids=(),
        )


# Several candidates in one series.


def enhanced_stacks(*stacks: tuple[str, list[float]]) -> Dataset:
    """One Enhanced instance of trace frames, each stack with its name and heights."""
    frames = []
    for name, heights in stacks:
        for z in heights:
            own = Dataset()
            own.PlanePositionSequence = item(ImagePositionPatient=[-20.0, -24.0, z])
            own.FrameContentSequence = item(StackID=name)
            frames.append(own)
    dataset = with_pixels(image(0), np.zeros((len(frames), ROWS, COLUMNS), np.uint16))
    del dataset.ImagePositionPatient
    dataset.SOPClassUID = ENHANCED_MR
    shared = Dataset()
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.PixelMeasuresSequence = item(PixelSpacing=[4.0, 4.0])
    shared.MRDiffusionSequence = item(DiffusionBValue=1000.0, DiffusionDirectionality="ISOTROPIC")
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return dataset


@pytest.mark.parametrize(
    ("stacks", "chosen"),
    [
        ((("2", [0, 5, 10]), ("1", [100, 107, 114])), "1"),
        ((("1", [0, 5, 10]), ("2", [100, 107, 114, 121])), "2"),
        ((("1", [0, 5, 15]), ("2", [100, 107, 114])), "2"),
    ],
)
def test_of_several_stacks_the_largest_is_judged_then_the_first_name(stacks, chosen):
    plan = choose(series([enhanced_stacks(*stacks)]))
    assert isinstance(plan, VolumePlan)
    assert {source.frame.stack_id for slice_ in plan.slices for source in slice_} == {chosen}


def test_stacks_that_all_fail_are_rejected_for_the_first():
    outcome = choose(series([enhanced_stacks(("b", [0, 1, 7]), ("a", [0, 5, 15]))]))
    assert isinstance(outcome, Rejection)
    assert outcome.reason is Reason.INCOMPLETE


def test_a_trace_acquired_twice_is_the_first_acquisitions():
    first = stack((0, 5, 10), is_trace=True, AcquisitionNumber=3)
    second = stack((0, 5, 10), is_trace=True, AcquisitionNumber=4)
    plan = choose(series(second, first))
    assert isinstance(plan, VolumePlan)
    assert plan.source_sop_instance_uids == tuple(sorted(str(d.SOPInstanceUID) for d in first))
    only_second = choose(series(second, first[:1]))
    assert isinstance(only_second, VolumePlan)
    assert only_second.source_sop_instance_uids == tuple(sorted(str(d.SOPInstanceUID) for d in second))
    doubled = choose(series(second, stack((0, 5, 10), is_trace=True, AcquisitionNumber=4)))
    assert isinstance(doubled, Rejection)
    assert doubled.reason is Reason.MIXED_GEOMETRY


def test_of_two_shells_equally_near_the_lower_is_judged():
    plan = choose(series(stack(b_value=1100.0), stack(b_value=900.0)))
    assert isinstance(plan, VolumePlan)
    assert plan.b_value == 900


def test_a_volume_that_ends_where_b0_goes_on_is_incomplete():
    b0, weighted = stack(range(0, 50, 5), b_value=0.0), stack(range(0, 35, 5), is_trace=True)
    assert choose(series(b0, weighted)) == Rejection(
        Reason.INCOMPLETE, "b=1000: 7 of the 10 positions of b=0, none at z = 35.0 mm"
    )


def test_a_volume_as_long_as_b0_is_judged_however_often_b0_came():
    b0, weighted = stack(b_value=0.0), stack(is_trace=True)
    assert isinstance(choose(series(b0, b0, weighted)), VolumePlan)


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"heights": range(1, 61, 5)},
        {"heights": range(0, 10, 5)},
        {"heights": range(0, 60, 5), "ImageOrientationPatient": tilted(20)},
        {"heights": range(0, 60, 5), "ImagePositionPatient": None},
    ],
    ids=["other positions", "fewer positions", "another orientation", "no position"],
)
def test_a_b0_of_another_place_says_nothing(elsewhere):
    assert isinstance(choose(series(stack(b_value=0.0, **elsewhere), stack(is_trace=True))), VolumePlan)
