from dataclasses import replace

import numpy as np
import pytest

from triage.phantom.acquisition import displace, row_shift
from triage.phantom.study import draw_study

from .conftest import PLAIN


def test_one_seed_gives_one_study(head, study):
    again = draw_study(head, 3, np.random.default_rng(5), protocol=PLAIN, with_distractors=False)
    assert np.array_equal(again.high_b.voxels_ZYX, study.high_b.voxels_ZYX)
    assert np.array_equal(again.b0.voxels_ZYX, study.b0.voxels_ZYX)
    assert again.coverage == study.coverage


def test_the_drawn_score_is_the_requested_one(study):
    assert study.aspects == study.aspects_under("20%") == 3


def test_the_infarct_is_brighter_than_the_same_place_on_the_other_side(study):
    voxels, columns = study.high_b.voxels_ZYX, study.high_b.voxels_ZYX.shape[2]
    inside = study.lesion_ZYX > 0.9
    # Column columns/2 is the middle of the field of view, where the midline lies but for the tilt.
    z, y, x = np.nonzero(inside)
    mirrored = voxels[z, y, np.clip(columns - x, 0, columns - 1)]
    assert np.median(voxels[inside]) > 1.25 * np.median(mirrored)


def test_fluid_is_bright_at_b0_and_dark_at_b1000(study):
    b0, high = study.b0.voxels_ZYX, study.high_b.voxels_ZYX
    brightest = b0 > np.percentile(b0, 99.5)
    assert np.median(high[brightest]) < np.median(high[study.region_ZYX > 0])


def test_slices_are_as_far_apart_as_thickness_plus_gap(study):
    slice_mm, row_mm, column_mm = study.high_b.spacing_mm
    assert slice_mm == pytest.approx(7.0)
    assert row_mm == column_mm == pytest.approx(240.0 / 96)


def test_array_axes_ascend_along_lps(study):
    affine = study.high_b.affine_lps
    assert np.all(np.diag(affine)[:3] > 0)
    assert np.linalg.det(affine[:3, :3]) > 0


def test_left_regions_lie_at_positive_x(study):
    indices = np.argwhere((study.region_ZYX >= 1) & (study.region_ZYX <= 10))
    points = np.c_[indices[:, ::-1], np.ones(len(indices))] @ study.high_b.affine_lps.T
    assert points[:, 0].mean() > 15.0


def test_distortion_moves_signal_and_keeps_it():
    planes = np.zeros((1, 40, 3), np.float32)
    planes[0, 15:25] = 1.0
    shift = np.full(planes.shape, 2.5, np.float32)
    moved = displace(planes, shift)
    rows = np.arange(40)
    assert moved.sum() == pytest.approx(planes.sum())
    assert (moved[0, :, 0] * rows).sum() / moved[0, :, 0].sum() == pytest.approx(19.5 + 2.5)


def test_reversed_blips_shift_the_other_way():
    field = np.full((1, 2, 2), 30.0, np.float32)
    backward = replace(PLAIN, phase_polarity=-1)
    assert np.array_equal(row_shift(PLAIN, field), -row_shift(backward, field))
    # 30 Hz at 30 Hz/px is one pixel of 2.5 mm, in fine rows of 1.5 mm.
    assert row_shift(PLAIN, field)[0, 0, 0] == pytest.approx(2.5 / 1.5)


def test_a_field_of_view_off_the_generators_grid_is_refused():
    with pytest.raises(ValueError, match="multiple of 3"):
        replace(PLAIN, fov_mm=250.0)
