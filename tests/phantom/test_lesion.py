import numpy as np
import pytest

from triage.phantom import aspects
from triage.phantom.distractor import infarct_elsewhere, old_infarct, white_matter_disease
from triage.phantom.lesion import draw_lesion, pick_regions


@pytest.mark.parametrize("requested", [0, 2, 5, 7, 9, 10])
def test_requested_aspects_is_the_rules(head, requested):
    lesion = draw_lesion(np.random.default_rng(requested), head, requested, aspects.DEFAULT_RULE)
    assert aspects.score(lesion.coverage) == requested


def test_coverage_is_what_the_mask_covers(head):
    lesion = draw_lesion(np.random.default_rng(1), head, 5, aspects.DEFAULT_RULE)
    first = 1 if lesion.side == "left" else 11
    counted = [float(lesion.mask_ZYX[head.region_ZYX == first + k].mean()) for k in range(10)]
    assert counted == pytest.approx(lesion.coverage)


def test_an_infarct_stays_in_its_hemisphere(head):
    lesion = draw_lesion(np.random.default_rng(2), head, 2, aspects.DEFAULT_RULE)
    other = 11 if lesion.side == "left" else 1
    healthy = (head.region_ZYX >= other) & (head.region_ZYX < other + 10)
    assert not lesion.mask_ZYX[healthy].any()


def test_a_score_outside_the_scale_is_refused(head):
    with pytest.raises(ValueError, match="expected 0 to 10"):
        draw_lesion(np.random.default_rng(0), head, 11, aspects.DEFAULT_RULE)


def test_regions_are_picked_once_each():
    picked = pick_regions(np.random.default_rng(0), 10)
    assert sorted(picked) == sorted(aspects.REGIONS)


@pytest.mark.parametrize("draw", [white_matter_disease, old_infarct, infarct_elsewhere])
def test_distractors_stay_out_of_the_infarct_that_counts(head, draw):
    acute = head.region_ZYX == 4
    found = draw(np.random.default_rng(3), head, acute)
    changed = (found.severity.adc_ratio_ZYX != 1.0) | (found.severity.t2_ratio_ZYX != 1.0)
    assert changed.any()
    assert not (changed & acute).any()


def test_infarcts_elsewhere_touch_no_region(head):
    found = infarct_elsewhere(np.random.default_rng(4), head, np.zeros(head.shape, bool))
    assert not (head.region_ZYX[found.severity.adc_ratio_ZYX < 1.0] > 0).any()
