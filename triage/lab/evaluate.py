"""How good a network is on heads it never saw, and which thresholds and temperature go with it.

Temperature and thresholds come from the validation heads alone; every figure below them is of the test
heads. A volume-only reader, given the true infarct volume, stands beside the network: a network that does
not beat it has learnt volume.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.optimize import minimize_scalar

from triage.lab import measures
from triage.lab.data import Cases, load_split
from triage.lab.models.rrcnn import RRCNN
from triage.lab.train import Stage, load_network, logits

EXACT: Final = Stage(1, 80, 1)
HALF: Final = "half"
SENSITIVE: Final = "sensitivity_90"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What validation fixes, and what the test then shows.

    temperature: logits are divided by it.
    thresholds: named operating points on the calibrated probability.
    report: figures for metrics.json, plain Python values throughout.
    """

    temperature: float
    thresholds: dict[str, float]
    report: dict[str, Any]


def evaluate(checkpoint: Path, cohort: Path) -> Evaluation:
    """Calibrate on the validation heads, measure on the test heads."""
    network, _ = load_network(checkpoint)
    return evaluate_on(network, load_split(cohort, "validation"), load_split(cohort, "test"))


def evaluate_on(network: RRCNN, validation: Cases, test: Cases) -> Evaluation:
    """`evaluate` with cases at hand."""
    logits_N2 = logits(network, validation, EXACT)
    temperature = fit_temperature(logits_N2, validation.positive_N)
    probability_N = calibrated(logits_N2, temperature)
    thresholds = {
        HALF: 0.5,
        SENSITIVE: measures.threshold_for_sensitivity(validation.positive_N, probability_N, 0.90),
    }
    tested_N = calibrated(logits(network, test, EXACT), temperature)
    report = {
        "note": "Synthetic studies only. Nothing here says how the network does on patients.",
        "temperature": temperature,
        "thresholds": thresholds,
        "validation": _figures(validation, probability_N, thresholds),
        "test": _figures(test, tested_N, thresholds)
        | {"by_score": errors_by_score(test, tested_N, 0.5), "strata": strata(test, tested_N)},
        "volume_only": volume_baseline(validation, test),
    }
    return Evaluation(temperature=temperature, thresholds=thresholds, report=_plain(report))


def calibrated(logits_N2: np.ndarray, temperature: float) -> np.ndarray:
    """P(ASPECTS 1-6)."""
    return 1.0 / (1.0 + np.exp((logits_N2[:, 0] - logits_N2[:, 1]) / temperature))


def fit_temperature(logits_N2: np.ndarray, positive_N: np.ndarray) -> float:
    """The temperature, 0.1 to 10, at which the cases are likeliest."""

    def surprise(log_temperature: float) -> float:
        p = np.clip(calibrated(logits_N2, math.exp(log_temperature)), 1e-7, 1.0 - 1e-7)
        return -float(np.mean(positive_N * np.log(p) + (1 - positive_N) * np.log(1.0 - p)))

    found = minimize_scalar(surprise, bounds=(math.log(0.1), math.log(10.0)), method="bounded")
    return math.exp(float(found.x))


def errors_by_score(cases: Cases, probability_N: np.ndarray, threshold: float) -> dict[str, dict[str, int]]:
    """Studies and wrong calls at each true ASPECTS."""
    wrong_N = (probability_N >= threshold) != (cases.positive_N == 1)
    return {
        str(score): {"studies": int(at.sum()), "errors": int(wrong_N[at].sum())}
        for score in range(1, 11)
        if (at := cases.aspects_N == score).any()
    }


def strata(cases: Cases, probability_N: np.ndarray) -> dict[str, Any]:
    """AUC and accuracy where it is easier or harder."""
    distracted_N = cases.distractors_N != ""
    groups = {
        "ASPECTS 5-8": (cases.aspects_N >= 5) & (cases.aspects_N <= 8),
        "with distractor": distracted_N,
        "without distractor": ~distracted_N,
    } | {f"head {name}": cases.head_N == name for name in np.unique(cases.head_N)}
    return {name: _stratum(cases.positive_N[at], probability_N[at]) for name, at in groups.items()}


def volume_baseline(validation: Cases, test: Cases) -> dict[str, Any]:
    """The true infarct volume as the only reader; its threshold has the best validation accuracy."""
    candidates = np.unique(validation.volume_ml_N)
    hits = [((validation.volume_ml_N >= cut) == (validation.positive_N == 1)).mean() for cut in candidates]
    cut_ml = float(candidates[int(np.argmax(hits))])
    return {
        **_area(test.positive_N, test.volume_ml_N),
        "threshold_ml": cut_ml,
        "at_threshold": measures.at_threshold(test.positive_N, test.volume_ml_N, cut_ml),
    }


def _figures(cases: Cases, probability_N: np.ndarray, thresholds: dict[str, float]) -> dict[str, Any]:
    return {
        "studies": len(cases),
        "heads": sorted({str(name) for name in cases.head_N}),
        **_area(cases.positive_N, probability_N),
        "brier": measures.brier(cases.positive_N, probability_N),
        "expected_calibration_error": measures.expected_calibration_error(cases.positive_N, probability_N),
        "operating_points": {
            name: measures.at_threshold(cases.positive_N, probability_N, value)
            for name, value in thresholds.items()
        },
    }


def _area(positive_N: np.ndarray, score_N: np.ndarray) -> dict[str, float]:
    low, high = measures.auc_interval(positive_N, score_N, np.random.default_rng(0))
    return {"auc": measures.auc(positive_N, score_N), "auc_low": low, "auc_high": high}


def _stratum(positive_N: np.ndarray, probability_N: np.ndarray) -> dict[str, Any]:
    right = int(((probability_N >= 0.5) == (positive_N == 1)).sum())
    return {
        "studies": len(positive_N),
        "auc": measures.auc(positive_N, probability_N),
        "accuracy": right / max(len(positive_N), 1),
    }


def _plain(value: Any) -> Any:
    """JSON has no NaN: an undefined figure is null; floats keep four digits."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value
