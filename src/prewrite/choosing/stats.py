"""Intervals and tests for scores in [0, 1], paired by item. `docs/statistics.md` says when each one applies.

scipy and statsmodels do the statistics; they are imported inside the functions, since they take a second to load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prewrite.errors import ConfigError

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A two-sided confidence interval of a mean, and the method that made it."""

    low: float
    high: float
    method: str = "bca"
    """`wilson` for 0/1 scores, `bca` for others, `exact` where all scores are equal."""


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much `a` is above `b` on the same items: mean of `a - b` in [-1, 1] with its interval."""

    mean: float
    low: float
    high: float
    n: int
    gained: int
    """Items that `a` scores higher than `b`."""
    lost: int
    """Items that `a` scores lower than `b`."""
    p_value: float
    """Two-sided, of no difference: exact McNemar for 0/1 scores, a sign-flip permutation test for others."""
    test: str
    """`mcnemar` or `sign-flip`."""
    level: float = 0.95

    @property
    def significant(self) -> bool:
        """Whether interval and test agree that there is a difference; with few unequal items only one of them may."""
        return (self.low > 0 or self.high < 0) and self.p_value <= 1 - self.level


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


def mean_interval(scores: ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Confidence interval of the mean score.

    Wilson's score interval where every score is 0 or 1, which keeps its coverage near 0% and 100%; the BCa bootstrap
    otherwise; an exact bound where all scores are equal, since resampling equal values shows no spread.
    Raises `ConfigError` for no scores, a NaN, or a level outside (0, 1).
    """
    values = _checked(scores, level)
    if _is_binary(values):
        from statsmodels.stats.proportion import proportion_confint

        low, high = proportion_confint(int(values.sum()), values.size, alpha=1 - level, method="wilson")
        return Interval(float(low), float(high), "wilson")
    return _mean_bootstrap(values, level, resamples, seed, lowest=0.0)


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> PairedDifference:
    """Difference of two instructions on the same items, `a - b`, with a BCa bootstrap interval over items.

    Items are resampled, never the two columns apart: what makes an item hard is shared. Raises `ConfigError` where the
    lengths differ.
    """
    first, second = _checked(a, level), _checked(b, level)
    if first.size != second.size:
        raise ConfigError(f"paired scores have {first.size} and {second.size} items; score both on the same items")
    difference = first - second
    interval = _mean_bootstrap(difference, level, resamples, seed, lowest=-1.0)
    gained, lost = int((difference > 0).sum()), int((difference < 0).sum())
    if _is_binary(first) and _is_binary(second):
        p_value, test = mcnemar_exact(first, second), "mcnemar"
    else:
        p_value, test = _sign_flip(difference, resamples, seed), "sign-flip"
    mean = float(difference.mean())
    return PairedDifference(mean, interval.low, interval.high, difference.size, gained, lost, p_value, test, level)


def mcnemar_exact(a: ArrayLike, b: ArrayLike) -> float:
    """Two-sided p-value of McNemar's exact test for 0/1 scores: are items gained as often as lost?

    Raises `ConfigError` for scores other than 0 and 1, or unequal lengths.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ConfigError(f"paired scores have {first.size} and {second.size} items; score both on the same items")
    if not (_is_binary(first) and _is_binary(second)):
        raise ConfigError("McNemar's test needs scores of 0 and 1; use paired_bootstrap for partial credit")
    gained, lost = int(((first == 1) & (second == 0)).sum()), int(((first == 0) & (second == 1)).sum())
    if gained + lost == 0:
        return 1.0
    from statsmodels.stats.contingency_tables import mcnemar

    return float(min(1.0, mcnemar([[0, gained], [lost, 0]], exact=True).pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p-values, in order, whose family-wise error stays at the level."""
    if not p_values:
        return []
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(list(p_values), method="holm")[1]]


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float | None:
    """Spearman's correlation in [-1, 1]; None where one side has a single value only."""
    from scipy.stats import spearmanr

    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if len(set(left.tolist())) < 2 or len(set(right.tolist())) < 2:
        return None
    return float(spearmanr(left, right).statistic)


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


@dataclass(frozen=True, slots=True)
class CorrectedEstimate:
    """The score of a candidate chosen on the very items that it was scored on, with the flattery taken out."""

    score: float
    low: float
    high: float
    gain: float
    """Score minus the baseline's, corrected in the same way."""
    gain_low: float
    gain_high: float
    n: int
    candidates: int
    level: float

    def to_json(self) -> dict[str, Any]:
        """JSON types only."""
        return asdict(self)

    def verdict(self) -> str:
        """One sentence that says what kind of estimate this is."""
        measured = (
            f"{100 * self.gain:+.1f} points by an estimate from the {self.n} dev rows, corrected for the choice among "
            f"{self.candidates} candidates, {self.level:.0%} interval {100 * self.gain_low:+.1f} to "
            f"{100 * self.gain_high:+.1f}; there were no test rows."
        )
        return measured if self.gain_low > 0 else f"No significant gain: {measured}"


def correct_for_selection(
    scores: ArrayLike,
    chosen: int,
    *,
    baseline: int = 0,
    untouched: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 1_000,
    seed: int = 0,
) -> CorrectedEstimate:
    """Nested resampling: choose on resampled items, score on the items left out, average over resamples.

    `scores` is (candidate, item) without gaps. The plain mean of the best of many is too high, since part of it is
    luck with these items; a score on left-out items has no part in the choice. This is the bootstrap bias correction
    of Tsamardinos, Greasidou and Borboudakis, Machine Learning 107 (2018). `untouched`, (2, item), holds scores of the
    chosen and of the baseline on items that the choice did not see; they count as they are. The interval is Student's,
    with the spread of the chosen candidate's scores. Where the choice is clear, the estimate is near the plain mean.
    """
    matrix = np.asarray(scores, dtype=np.float64)
    if matrix.ndim != 2 or not 0 <= chosen < len(matrix) or not 0 <= baseline < len(matrix):
        raise ConfigError(f"scores of shape {matrix.shape} hold no candidates {chosen} and {baseline}")
    _checked(matrix, level)
    candidates, count = matrix.shape
    if count < 2:
        raise ConfigError("one item cannot be resampled; give at least two dev rows")
    from scipy.special import stdtrit

    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    left_out = (drawn == 0).astype(np.float64)
    usable = left_out.sum(axis=1) > 0
    drawn, left_out = drawn[usable].astype(np.float64), left_out[usable]
    winners = (drawn @ matrix.T).argmax(axis=1)
    unseen = (left_out @ matrix.T) / left_out.sum(axis=1, keepdims=True)  # (resample, candidate)
    of_winners = unseen[np.arange(len(unseen)), winners]
    apart = np.zeros((2, 0)) if untouched is None else np.asarray(untouched, dtype=np.float64)
    pair = np.hstack([matrix[[chosen, baseline]], apart])
    total = pair.shape[1]
    score = float((count * of_winners.mean() + apart[0].sum()) / total)
    gain = float((count * (of_winners - unseen[:, baseline]).mean() + (apart[0] - apart[1]).sum()) / total)
    reach = float(stdtrit(total - 1, (1 + level) / 2)) / np.sqrt(total)
    of_score, of_gain = reach * pair[0].std(ddof=1), reach * (pair[0] - pair[1]).std(ddof=1)
    if chosen == baseline:
        gain = 0.0
    return CorrectedEstimate(
        score,
        float(max(0.0, score - of_score)),
        float(min(1.0, score + of_score)),
        gain,
        float(gain - of_gain),
        float(gain + of_gain),
        total,
        candidates,
        level,
    )


def _checked(scores: ArrayLike, level: float) -> Floats:
    values = np.asarray(scores, dtype=np.float64).ravel()
    if not 0 < level < 1:
        raise ConfigError(f"level {level} is outside (0, 1); 0.95 gives a 95% interval")
    if values.size == 0:
        raise ConfigError("there are no scores; an interval needs at least one item")
    if np.isnan(values).any():
        raise ConfigError(f"{int(np.isnan(values).sum())} of {values.size} scores are NaN; score every item first")
    return values


def _is_binary(values: Floats) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _mean_bootstrap(values: Floats, level: float, resamples: int, seed: int, *, lowest: float) -> Interval:
    """BCa interval of the mean of values in [lowest, 1]."""
    mean = float(values.mean())
    if np.ptp(values) < 1e-12:
        # Equal values say that at most a share q of all items differs (Clopper-Pearson); those could lie anywhere.
        q = 1 - ((1 - level) / 2) ** (1 / values.size)
        return Interval(mean - q * (mean - lowest), mean + q * (1 - mean), "exact")
    from scipy.stats import bootstrap

    result: Any = bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, 5_000_000 // values.size),
        confidence_level=level,
        method="BCa",
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return Interval(float(low), float(high), "bca")


def _sign_flip(difference: Floats, resamples: int, seed: int) -> float:
    """Two-sided p-value of no difference: under it, each item's sign is a coin.

    As `scipy.stats.permutation_test` with one sample, several times faster (docs/log.md).
    """
    moved = difference[difference != 0]
    if moved.size == 0:
        return 1.0
    rng = np.random.default_rng(seed)
    observed = abs(moved.sum()) * (1 - 1e-12)
    batch = max(1, 5_000_000 // moved.size)
    beyond = 0
    for start in range(0, resamples, batch):
        signs = rng.integers(0, 2, (min(batch, resamples - start), moved.size)) * 2 - 1
        beyond += int((np.abs(signs @ moved) >= observed).sum())
    return (beyond + 1) / (resamples + 1)
