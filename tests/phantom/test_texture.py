import numpy as np
import pytest

from triage.phantom.susceptibility import field_map
from triage.phantom.texture import random_field, upsample


def test_random_fields_are_standardised_and_smooth_at_their_scale():
    fine = random_field(np.random.default_rng(0), (30, 30, 30), 2.0)
    coarse = random_field(np.random.default_rng(0), (30, 30, 30), 12.0)
    assert coarse.mean() == pytest.approx(0.0, abs=1e-5)
    assert coarse.std() == pytest.approx(1.0, abs=1e-5)
    assert np.abs(np.diff(coarse, axis=0)).mean() < np.abs(np.diff(fine, axis=0)).mean()


def test_upsampling_keeps_the_corners():
    coarse = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    fine = upsample(coarse, (5, 6, 7))
    assert fine[0, 0, 0] == 0.0
    assert fine[-1, -1, -1] == 7.0


def test_air_below_the_brain_disturbs_the_field_most_where_it_is_near():
    shape = (24, 20, 20)
    air, bone = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    air[2:6, 8:12, 8:12] = 1.0
    brain = np.zeros(shape, np.float32)
    brain[8:] = 1.0
    field = np.abs(field_map(air, bone, brain))
    assert field[8, 8:12, 8:12].mean() > 3.0 * field[20, 8:12, 8:12].mean()
