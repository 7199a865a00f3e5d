"""The chosen candidate's dev score without the luck of the choice, for runs that hold out no test rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from prewrite.choosing.stats import checked
from prewrite.errors import ConfigError


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
    checked(matrix, level)
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
