"""Label offsets: what a task model says whatever the input is, taken out of its label log-probabilities.

A language model prefers some labels before it has read the input, and exemplars push it further. An offset for each
label, in nats, is taken off the label's log-probability before the highest one is chosen:

- batch: the log of each label's mean probability over some inputs (batch calibration, arXiv 2309.17249, section 3);
  it needs no gold answer and assumes that labels are about equally frequent. Searches compare prompts by it;
- fitted: maximum likelihood on labelled rows, shrunk towards `batch`, so that few rows cannot lead it far. It assumes
  that labels are as frequent as in those rows. Prompts are shipped with it.

`choose_offsets` says by cross-validation on the labelled rows whether a prompt is better with fitted offsets than
without. All of this is arithmetic on scores that are there already: it costs no task-model call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Method = Literal["none", "fitted"]

SHRINKAGE = 2.0
"""Strength of the pull towards `batch`: this over the number of rows, times the squared distance in nats."""
SCALE_SHRINKAGE = 0.01
"""Pull of the scale's logarithm towards 0: without it, rows that all come out right would drive the scale up."""
FOLDS = 5
LEAST_ROWS = 20
"""With fewer labelled rows there are no offsets."""


class Offsets(NamedTuple):
    """One offset per label, and how they were found."""

    method: Method
    values: Floats  # (label,), in nats, mean 0
    right: Floats  # (item,), 1 where the label is right with offsets found on other rows, else 0


def batch_offsets(logprobs: Floats) -> Floats:
    """Batch calibration of label log-probabilities (item, label); (label,) in nats, mean 0."""
    return _centred(np.log(np.exp(_log_softmax(logprobs)).mean(axis=0)))


def fitted_offsets(logprobs: Floats, gold: NDArray[np.intp]) -> Floats:
    """Maximum-likelihood offsets for rows (item, label) with gold label numbers (item,); (label,) in nats, mean 0.

    The likelihood is of softmax(s (log p - offset)): language models state labels too surely or not surely enough, and
    the scale s takes that up, so that the offsets need not. The scale does not change which label is highest, and is
    not returned.
    """
    from scipy.optimize import minimize

    rows, labels = logprobs.shape
    scores, prior, index = _log_softmax(logprobs), batch_offsets(logprobs), np.arange(rows)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        offsets, log_scale = parameters[:labels], parameters[labels]
        shifted = scores - offsets
        scale = np.exp(log_scale)
        chosen = _log_softmax(scale * shifted)
        residual = np.exp(chosen)
        residual[index, gold] -= 1
        away = offsets - prior
        value = -chosen[index, gold].mean() + SHRINKAGE / rows * away @ away + SCALE_SHRINKAGE * log_scale**2
        of_offsets = -scale * residual.mean(axis=0) + 2 * SHRINKAGE / rows * away
        of_scale = scale * (residual * shifted).sum() / rows + 2 * SCALE_SHRINKAGE * log_scale
        return float(value), np.append(of_offsets, of_scale)

    found = minimize(loss, np.append(prior, 0.0), jac=True, method="L-BFGS-B")
    return _centred(found.x[:labels])


def choose_offsets(logprobs: Floats, gold: NDArray[np.intp], *, seed: int = 0) -> Offsets:
    """Fitted offsets if they get more rows right in cross-validation than none do, else none.

    No clear lead is asked for: rules that did gave away 1 to 2 points with 25 to 125 rows (docs/log.md).

    Args:
        logprobs: label log-probabilities of labelled rows, (item, label).
        gold: number of the right label, (item,).
        seed: of the folds.
    """
    rows, labels = logprobs.shape
    plain = np.asarray(logprobs.argmax(axis=1) == gold, dtype=np.float64)
    none = Offsets("none", np.zeros(labels), plain)
    if rows < LEAST_ROWS:
        return none
    shifted = np.empty_like(logprobs)
    fold = np.random.default_rng(seed).permutation(rows) % FOLDS
    for held_out in range(FOLDS):
        inside, outside = fold != held_out, fold == held_out
        shifted[outside] = logprobs[outside] - fitted_offsets(logprobs[inside], gold[inside])
    right = np.asarray(shifted.argmax(axis=1) == gold, dtype=np.float64)
    return Offsets("fitted", fitted_offsets(logprobs, gold), right) if right.sum() > plain.sum() else none


def clearly_better(scores: Floats, others: Floats, *, errors: float = 1.0) -> bool:
    """Whether paired scores are higher on average by more than so many standard errors of that difference."""
    return standard_errors(np.asarray(scores, dtype=np.float64) - others) > errors


def standard_errors(differences: Floats) -> float:
    """The mean of paired differences in its own standard errors, as if their true mean were 0; 0 if all are 0."""
    squares = float((differences**2).sum())
    return float(differences.sum()) / math.sqrt(squares) if squares else 0.0


def calibrated_logprob(logprobs: Floats, gold: NDArray[np.intp]) -> Floats:
    """Log-probability of each row's right label once `batch` offsets are off; (item,), at most 0.

    What a search compares prompts by while it has seen few rows. It moves with every row, where accuracy moves with
    the few rows near a border: in a search over 256 sets of exemplars at 1,000 calls it found prompts 1 to 2 points
    better than accuracy did, plain or calibrated (docs/log.md).
    """
    return gold_logprob(logprobs - batch_offsets(logprobs), gold)


def gold_logprob(logprobs: Floats, gold: NDArray[np.intp]) -> Floats:
    """Log-probability of each row's right label among the labels, without offsets; (item,), at most 0."""
    return np.asarray(_log_softmax(logprobs)[np.arange(len(gold)), gold])


def gold_indices(labels: Sequence[str], targets: Sequence[Sequence[str]]) -> NDArray[np.intp]:
    """Number of each row's right label, the first of `labels` among its accepted answers; (item,)."""
    return np.array([next(i for i, label in enumerate(labels) if label in accepted) for accepted in targets])


def _log_softmax(values: Floats) -> Floats:
    from scipy.special import log_softmax

    return np.asarray(log_softmax(np.asarray(values, dtype=np.float64), axis=-1))


def _centred(values: Floats) -> Floats:
    return np.asarray(values - values.mean())
