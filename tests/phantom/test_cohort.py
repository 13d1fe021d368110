import numpy as np
import pytest

from triage.core.preprocess import PreprocessSettings
from triage.phantom.cohort import HEADS, CohortPlan, claim, draw_case, draw_score

PLAN = CohortPlan(
    seed=1, per_train_head=2, per_validation_head=1, per_test_head=1, settings=PreprocessSettings()
)


def test_no_head_is_in_two_splits():
    numbers = [number for split in HEADS.values() for number in split]
    assert len(numbers) == len(set(numbers)) == 17


def test_a_case_depends_on_its_own_index_alone(head):
    once, again = draw_case(head, PLAN, "train", 3), draw_case(head, PLAN, "train", 3)
    assert np.array_equal(once.input_ZYX, again.input_ZYX)
    other = draw_case(head, PLAN, "train", 4)
    assert not np.array_equal(once.input_ZYX, other.input_ZYX)


def test_network_slices_with_infarct_are_those_that_show_it(head):
    case = draw_case(head, PLAN, "train", 5)
    assert case.input_ZYX.shape == (20, 80, 80)
    assert case.input_ZYX.dtype == np.uint8
    assert (case.lesion_share_Z > 0).any() == (case.volume_ml > 0)
    assert case.lesion_share_Z.max() < 0.6


def test_scores_follow_the_paper_and_leave_none_out():
    rng = np.random.default_rng(0)
    drawn = np.array([draw_score(rng) for _ in range(4000)])
    counts = np.bincount(drawn, minlength=11)
    assert (counts[1:] > 0).all()
    assert counts.argmax() == 8


def test_a_folder_keeps_one_plan(tmp_path):
    claim(tmp_path, PLAN)
    claim(tmp_path, PLAN)
    with pytest.raises(ValueError, match="another cohort"):
        claim(
            tmp_path,
            CohortPlan(
                seed=2, per_train_head=2, per_validation_head=1, per_test_head=1, settings=PLAN.settings
            ),
        )
