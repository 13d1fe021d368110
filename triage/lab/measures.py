"""Figures that describe a classifier, with the intervals that go beside them."""

from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import rankdata


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A proportion with its 95 per cent Wilson interval."""

    value: float
    low: float
    high: float
    count: int
    of: int


def auc(positive_N: np.ndarray, score_N: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative.

    >>> auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
    0.75
    """
    positives = int(positive_N.sum())
    negatives = len(positive_N) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    rank_sum = rankdata(score_N)[positive_N == 1].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def auc_interval(
    positive_N: np.ndarray, score_N: np.ndarray, rng: np.random.Generator, draws: int = 2000
) -> tuple[float, float]:
    """95 per cent bootstrap interval over studies."""
    picks = rng.integers(0, len(positive_N), (draws, len(positive_N)))
    areas = np.array([auc(positive_N[pick], score_N[pick]) for pick in picks])
    low, high = np.nanpercentile(areas, [2.5, 97.5])
    return float(low), float(high)


def wilson(count: int, of: int) -> Rate:
    """Wilson 1927 score interval.

    >>> rate = wilson(26, 31)
    >>> round(rate.low, 2), round(rate.high, 2)
    (0.67, 0.93)
    """
    if of == 0:
        return Rate(value=float("nan"), low=0.0, high=1.0, count=0, of=0)
    z, share = 1.959964, count / of
    centre = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * np.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return Rate(value=share, low=float(centre - half), high=float(centre + half), count=count, of=of)


def at_threshold(positive_N: np.ndarray, probability_N: np.ndarray, threshold: float) -> dict[str, object]:
    """Sensitivity, specificity and accuracy with intervals, and F1 of each class."""
    called = probability_N >= threshold
    truth = positive_N == 1
    tp, fn = int((called & truth).sum()), int((~called & truth).sum())
    tn, fp = int((~called & ~truth).sum()), int((called & ~truth).sum())
    return {
        "threshold": threshold,
        "sensitivity": asdict(wilson(tp, tp + fn)),
        "specificity": asdict(wilson(tn, tn + fp)),
        "accuracy": asdict(wilson(tp + tn, len(truth))),
        "f1_aspects_1_6": 2 * tp / max(2 * tp + fp + fn, 1),
        "f1_aspects_7_10": 2 * tn / max(2 * tn + fp + fn, 1),
    }


def brier(positive_N: np.ndarray, probability_N: np.ndarray) -> float:
    """Mean squared distance between probability and truth."""
    return float(np.mean((probability_N - positive_N) ** 2))


def expected_calibration_error(positive_N: np.ndarray, probability_N: np.ndarray, bins: int = 10) -> float:
    """Distance between probability and observed share, weighted over equal-width bins."""
    bin_N = np.minimum((probability_N * bins).astype(int), bins - 1)
    gaps = [
        abs(probability_N[bin_N == b].mean() - positive_N[bin_N == b].mean()) * (bin_N == b).mean()
        for b in range(bins)
        if (bin_N == b).any()
    ]
    return float(sum(gaps))


def threshold_for_sensitivity(positive_N: np.ndarray, probability_N: np.ndarray, wanted: float) -> float:
    """The highest threshold that still calls the wanted share of positives.

    >>> threshold_for_sensitivity(np.array([1, 1, 0]), np.array([0.9, 0.4, 0.2]), 0.9)
    0.4
    """
    ordered = np.sort(probability_N[positive_N == 1])[::-1]
    return float(ordered[int(np.ceil(wanted * len(ordered))) - 1])
