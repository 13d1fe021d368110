import numpy as np
import pytest

from triage.lab import measures


def test_auc_is_half_for_ties_and_undefined_for_one_class():
    assert measures.auc(np.array([0, 1]), np.array([0.5, 0.5])) == 0.5
    assert np.isnan(measures.auc(np.array([1, 1]), np.array([0.1, 0.2])))


def test_the_papers_sensitivity_has_the_interval_we_print():
    rate = measures.wilson(26, 31)
    assert (rate.value, rate.low, rate.high) == pytest.approx((0.839, 0.674, 0.929), abs=2e-3)


def test_each_f1_names_its_class():
    figures = measures.at_threshold(np.array([1, 1, 0, 0]), np.array([0.9, 0.1, 0.2, 0.3]), 0.5)
    assert figures["f1_aspects_1_6"] == pytest.approx(2 / 3)
    assert figures["f1_aspects_7_10"] == pytest.approx(4 / 5)


def test_a_calibrated_forecast_has_no_calibration_error():
    probability = np.full(10, 0.3)
    positive = np.array([1, 1, 1] + [0] * 7)
    assert measures.expected_calibration_error(positive, probability) == pytest.approx(0.0)
    assert measures.brier(positive, probability) == pytest.approx(0.21)


def test_the_sensitive_threshold_reaches_the_share_it_promises():
    rng = np.random.default_rng(0)
    positive, score = np.repeat([0, 1], 50), rng.random(100)
    threshold = measures.threshold_for_sensitivity(positive, score, 0.9)
    assert (score[positive == 1] >= threshold).mean() >= 0.9
