"""What scored labels tell beyond the answer: how sure the task model was, and which labels it favours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from prewrite.choosing.stats import Floats
from prewrite.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Answers whose confidence lies in (low, high], the first bin closed at 0."""

    low: float
    high: float
    count: int
    confidence: float
    """Mean confidence of these answers."""
    accuracy: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """How far stated confidence and accuracy agree. `bins` leaves out empty ones."""

    bins: tuple[ReliabilityBin, ...]
    ece: float
    """Expected calibration error: mean of |accuracy - confidence| over bins, weighted by count (Guo et al. 2017)."""
    brier: float
    """Mean squared distance between confidence and correctness; lower is better."""


def label_probabilities(label_logprobs: ArrayLike) -> Floats:
    """Probability of each label given that the answer is one of them; (item, label), rows of sum 1.

    A label's log-probability is that of its tokens among all texts, so the row is normalised over the labels.
    """
    from scipy.special import softmax

    return np.asarray(softmax(np.asarray(label_logprobs, dtype=np.float64), axis=-1))


def batch_calibrate(label_logprobs: ArrayLike) -> Floats:
    """Label log-probabilities less the log of each label's mean probability over the items; (item, label).

    This takes out the task model's preference for some labels whatever the input is (Zhou et al., arXiv 2309.17249,
    section 3). It needs no gold answers, and assumes that the labels are about equally frequent.
    """
    logprobs = np.asarray(label_logprobs, dtype=np.float64)
    return np.asarray(logprobs - np.log(label_probabilities(logprobs).mean(axis=0)))


def reliability(confidence: ArrayLike, correct: ArrayLike, *, bins: int = 10) -> Reliability:
    """Reliability of `confidence` in [0, 1] against `correct` in {0, 1}, in bins of equal width."""
    stated, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if stated.shape != right.shape or stated.size == 0:
        raise ConfigError(f"reliability needs as many confidences as outcomes, got {stated.size} and {right.size}")
    place = np.clip(np.ceil(stated * bins).astype(int) - 1, 0, bins - 1)
    filled = []
    for index in range(bins):
        inside = place == index
        if inside.any():
            filled.append(
                ReliabilityBin(
                    index / bins,
                    (index + 1) / bins,
                    int(inside.sum()),
                    float(stated[inside].mean()),
                    float(right[inside].mean()),
                )
            )
    ece = sum(b.count * abs(b.accuracy - b.confidence) for b in filled) / stated.size
    return Reliability(tuple(filled), float(ece), float(((stated - right) ** 2).mean()))
