"""Names, numbers and times as people read them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.web.phrases import age_words, duration_words, patient_words, probability_words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3, "just now"), (4, "just now"), (35, "35 s ago"), (59.9, "59 s ago"), (200, "3 min ago"),
        (7500, "2 h 5 min ago"), (86400, "1 day ago"), (400000, "4 days ago"),
    ],
)  # fmt: skip
def test_age(seconds: float, said: str) -> None:
    assert age_words(timedelta(seconds=seconds)) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "0.00 s"), (0.024, "0.02 s"), (2.34, "2.3 s"), (59.96, "1 min 0 s"), (65, "1 min 5 s"),
        (7380, "2 h 3 min"),
    ],
)  # fmt: skip
def test_duration(seconds: float, said: str) -> None:
    assert duration_words(timedelta(seconds=seconds)) == said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "no name given"), ("^^^", "no name given"), ("DOE^JANE^Q^DR^PhD", "DOE, JANE Q, DR, PhD"),
        ("DOE", "DOE"),
        ("=山田^太郎", "山田 太郎"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou (山田 太郎)"),
    ],
)  # fmt: skip
def test_patient(name: str, said: str) -> None:
    assert patient_words(name) == said


@given(st.floats(0, 1), st.floats(0.01, 0.99))
def test_rounding_never_moves_a_probability_across_its_threshold(
    probability: float, threshold: float
) -> None:
    words, limit_words = probability_words(probability, threshold)
    if words[0] not in "<>" and abs(probability - threshold) > 1e-8:
        assert (float(words) >= float(limit_words)) == (probability >= threshold)


@pytest.mark.parametrize(("probability", "said"), [(0.0, "< 0.01"), (1.0, "> 0.99"), (0.5, "0.50")])
def test_nothing_is_shown_as_certain(probability: float, said: str) -> None:
    assert probability_words(probability, 0.5)[0] == said
