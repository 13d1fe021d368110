import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.core.finding import Category, Finding

unit = st.floats(0, 1)


@given(probability=unit, threshold=unit)
def test_probability_at_or_above_the_threshold_is_aspects_1_6(probability, threshold):
    is_low = Finding(probability, threshold).category is Category.ASPECTS_1_6
    assert is_low == (probability >= threshold)


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf")])
def test_probability_outside_0_to_1_is_refused(value):
    with pytest.raises(ValueError, match=r"probability must be within 0\.\.1"):
        Finding(value, 0.5)


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf")])
def test_threshold_that_no_probability_can_meet_is_refused_and_never_a_negative(value):
    with pytest.raises(ValueError, match=r"threshold must be within 0\.\.1"):
        Finding(0.9, value)


def test_only_aspects_1_6_calls_a_person():
    assert [category for category in Category if category.is_urgent] == [Category.ASPECTS_1_6]


def test_category_values_are_the_public_ones():
    assert [category.value for category in Category] == ["ASPECTS_1_6", "ASPECTS_7_10"]
