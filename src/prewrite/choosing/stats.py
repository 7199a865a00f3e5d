"""Intervals and tests for scores in [0, 1], paired by item. `docs/statistics.md` says when each one applies.

scipy and statsmodels do the statistics; they are imported inside the functions, since they take a second to load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


def mean_interval(scores: ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Confidence interval of the mean score.

    Wilson's score interval where every score is 0 or 1, which keeps its coverage near 0% and 100%; the BCa bootstrap
    otherwise; an exact bound where all scores are equal, since resampling equal values shows no spread.
    Raises `ConfigError` for no scores, a NaN, or a level outside (0, 1).
    """
    values = checked(scores, level)
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
    first, second = checked(a, level), checked(b, level)
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


def checked(scores: ArrayLike, level: float) -> Floats:
    """The scores in one row. Raises `ConfigError` for no scores, a NaN, or a level outside (0, 1)."""
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
