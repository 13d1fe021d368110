import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pydantic import ValidationError

from triage.core.preprocess import (
    Box,
    PreprocessSettings,
    brain_box,
    crop,
    otsu_threshold,
    preprocess,
    resample_slices,
    resize,
    slice_positions,
    stretch_contrast,
)
from triage.core.volume import DwiVolume, VolumeKind

DEFAULT = PreprocessSettings()


def volume_of(voxels_ZYX):
    return DwiVolume(
        voxels_ZYX=np.asarray(voxels_ZYX, np.float32),
        affine_lps=np.diag([2.0, 2.0, 4.0, 1.0]),
        b_value=1000.0,
        kind=VolumeKind.TRACE,
        source_sop_instance_uids=("1.2.3",),
    )


def head(slices=40, size=64, radius=22, tissue=300.0, noise=4.0):
    """An ellipsoid of tissue in noise, off centre: rows 8..52, columns 14..58 in its widest slice."""
    rng = np.random.default_rng(7)
    z, y, x = np.mgrid[:slices, :size, :size].astype(float)
    inside = (
        ((z - slices / 2) / (slices * 0.6)) ** 2 + ((y - 30) / radius) ** 2 + ((x - 36) / radius) ** 2
    ) < 1
    return (np.abs(rng.normal(0, noise, inside.shape)) + tissue * inside).astype(np.float32)


def test_40_slices_of_the_paper_keep_the_20_between_35_and_85_percent():
    assert slice_positions(40, DEFAULT).tolist() == list(range(14, 34))


@given(slice_count=st.integers(1, 400), caudal=st.floats(0, 0.6), cranial=st.floats(0, 0.39))
def test_slice_positions_ascend_evenly_inside_the_kept_extent(slice_count, caudal, cranial):
    positions = slice_positions(
        slice_count, PreprocessSettings(caudal_fraction=caudal, cranial_fraction=cranial)
    )
    steps = np.diff(positions)
    assert np.all(steps > 0)
    assert np.allclose(steps, steps[0])
    assert positions[0] > caudal * slice_count - 0.5 - 1e-9
    assert positions[-1] < (1 - cranial) * slice_count - 0.5 + 1e-9


def test_resampled_slice_lies_linearly_between_its_neighbours():
    voxels_ZYX = np.arange(5, dtype=np.float32)[:, None, None] * np.ones((1, 2, 2), np.float32)
    planes_ZYX = resample_slices(voxels_ZYX, np.array([-0.5, 0.0, 1.25, 4.0, 4.4]))
    assert planes_ZYX[:, 0, 0].tolist() == [0.0, 0.0, 1.25, 4.0, 4.0]
    assert planes_ZYX.dtype == np.float32


def test_brain_box_encloses_the_head_and_little_more():
    assert list(brain_box(head())) == pytest.approx([9, 52, 15, 58], abs=2)


def test_bright_infarct_does_not_shrink_the_brain_box():
    voxels_ZYX = head()
    expected = brain_box(voxels_ZYX)
    voxels_ZYX[15:25, 25:40, 40:52] *= 2.7
    assert brain_box(voxels_ZYX) == expected


def test_speck_away_from_the_head_does_not_widen_the_brain_box():
    voxels_ZYX = head()
    expected = brain_box(voxels_ZYX)
    voxels_ZYX[10, 60:63, 1:4] = 300
    assert brain_box(voxels_ZYX) == expected


@pytest.mark.parametrize(
    "planes_ZYX",
    [
        pytest.param(np.zeros((3, 12, 10), np.float32), id="empty"),
        pytest.param(np.full((3, 12, 10), 7, np.float32), id="constant"),
        pytest.param(np.full((3, 12, 10), -7, np.float32), id="negative"),
        pytest.param(np.where(np.indices((3, 12, 10))[2] == 4, 9, 1).astype(np.float32), id="line"),
    ],
)
def test_volume_without_a_head_keeps_its_whole_field_of_view(planes_ZYX):
    assert brain_box(planes_ZYX) == Box(0, 12, 0, 10)


def test_crop_keeps_every_plane():
    assert crop(np.zeros((4, 9, 9), np.float32), Box(1, 5, 2, 9)).shape == (4, 4, 7)


@given(
    planes_ZYX=npst.arrays(np.float32, (2, 3, 4), elements=st.floats(-1000, 5000, width=32)),
    low=st.floats(0, 1000),
    span=st.floats(0.125, 4000),
)
def test_stretched_contrast_stays_in_0_to_255_and_in_order(planes_ZYX, low, span):
    stretched_ZYX = stretch_contrast(planes_ZYX, low, low + span)
    assert stretched_ZYX.dtype == np.float32
    assert 0 <= stretched_ZYX.min() <= stretched_ZYX.max() <= 255
    order = np.argsort(planes_ZYX, axis=None)
    assert np.all(np.diff(stretched_ZYX.ravel()[order]) >= 0)


def test_no_contrast_between_the_percentiles_still_gives_finite_numbers():
    planes_ZYX = np.array([[[4.0, 5.0, 6.0]]], np.float32)
    assert stretch_contrast(planes_ZYX, 5.0, 5.0).tolist() == [[[0.0, 0.0, 255.0]]]


@pytest.mark.parametrize("shape", [(3, 2, 2), (3, 80, 80), (3, 37, 101), (1, 200, 150)])
def test_resized_planes_have_the_network_size_whatever_the_crop(shape):
    planes_ZYX = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    resized_ZYX = resize(planes_ZYX, 80)
    assert resized_ZYX.shape == (shape[0], 80, 80)
    assert 0 <= resized_ZYX.min() <= resized_ZYX.max() <= 255


def test_resize_mixes_no_slices():
    planes_ZYX = np.zeros((3, 40, 40), np.float32)
    planes_ZYX[1] = 200
    assert np.allclose(resize(planes_ZYX, 80).mean(axis=(1, 2)), [0, 200, 0], atol=1e-3)


def test_resize_keeps_a_ramp_a_ramp():
    ramp_ZYX = np.tile(np.linspace(0, 255, 40, dtype=np.float32), (1, 40, 1))
    row = resize(ramp_ZYX, 80)[0, 40]
    assert np.allclose(np.diff(row)[8:-8], 255 / 39 / 2, atol=0.05)


def test_otsu_parts_two_clusters_between_them():
    values = np.concatenate([np.linspace(0, 1, 50), np.linspace(9, 10, 50)]).astype(np.float32)
    assert 1 <= otsu_threshold(values) <= 9


def test_preprocessed_head_fills_the_network_input():
    voxels_ZYX = head()
    result = preprocess(volume_of(voxels_ZYX), DEFAULT)
    assert result.input_ZYX.shape == (20, 80, 80)
    assert result.input_ZYX.dtype == np.float32
    assert (result.input_ZYX.min(), result.input_ZYX.max()) == (0, 255)
    assert result.slice_positions.tolist() == list(range(14, 34))
    assert result.box == brain_box(voxels_ZYX[14:34])


def test_scanner_scale_does_not_change_the_network_input():
    voxels_ZYX = head()
    plain = preprocess(volume_of(voxels_ZYX), DEFAULT).input_ZYX
    scaled = preprocess(volume_of(voxels_ZYX * 8), DEFAULT).input_ZYX
    assert np.allclose(plain, scaled, atol=0.01)


@settings(max_examples=25, deadline=None)
@given(
    voxels_ZYX=npst.arrays(
        np.float32,
        st.tuples(st.integers(1, 12), st.integers(2, 24), st.integers(2, 24)),
        elements=st.floats(-50, 4000, width=32),
    )
)
def test_any_finite_volume_gives_a_finite_input_of_the_network_shape(voxels_ZYX):
    input_ZYX = preprocess(volume_of(voxels_ZYX), DEFAULT).input_ZYX
    assert input_ZYX.shape == (20, 80, 80)
    assert np.isfinite(input_ZYX).all()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"caudal_fraction": 0.6, "cranial_fraction": 0.4}, "must leave slices"),
        ({"low_percentile": 99, "high_percentile": 99}, "low_percentile must be below"),
        ({"slices": 0}, "slices"),
        ({"colour": 1}, "colour"),
    ],
)
def test_settings_that_leave_nothing_are_refused(changes, complaint):
    with pytest.raises(ValidationError, match=complaint):
        PreprocessSettings(**changes)
