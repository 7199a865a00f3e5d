"""Proposing rewrites and choosing one on the dev set: PRewrite-I (greedy), PRewrite-S (best of K samples).

The paper scores every candidate on every dev item. Here candidates race: all see the same items in the same order, and
one that is shown to be worse than the leaders stops. At each look, candidate i is tested against a field: the mean
score of the others, weighted towards the leaders as they stood at the look before. If i were the best, no such field
could beat it on average, whatever the weights; so there is one test per candidate and no correction over pairs, and
only the best candidate's own test must not fail. The looks are few and fixed, and the limit is Pocock's, which the
highest of all looks passes with the stated probability: "Group sequential methods in the design and analysis of
clinical trials", Biometrika 64 (1977). Testing against a weighted field, not against each rival, is our choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prewrite.choosing.candidates import Candidate
from prewrite.choosing.stats import CorrectedEstimate, correct_for_selection
from prewrite.errors import ConfigError
from prewrite.types import RewriteExample

Floats = NDArray[np.float64]
Score = Callable[[Sequence[str], Sequence[RewriteExample]], Floats]
"""Scores in [0, 1], shape (rewrites, examples); `Evaluator.score`."""

LOOKS_GROWTH = 1.4
"""Ratio of items from one look to the next: few looks keep the limit low, and clear losers still leave early."""
FIELD_SHARPNESS = 4.0
"""How fast a rival's weight in the field falls with its distance to the leader, in that distance's standard errors."""
PRIOR_ITEMS = 1.0
"""Items, half won and half lost, added to every test: they keep the variance above zero where few items differ."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What was chosen, and the scores that it rests on."""

    candidates: tuple[Candidate, ...]
    chosen: int
    """Index into `candidates`."""
    scores: Floats
    """(candidate, example) in the order of `examples`; NaN where the race had no need to ask."""
    raced: NDArray[np.intp]
    """The examples that the choice rests on, in the order of the race."""
    calls: int
    """Candidate-item pairs that were scored to choose."""
    full_calls: int
    """Pairs that scoring everything would have taken."""
    extra_calls: int
    """Pairs scored after the choice, by `complete`."""
    stopped: str
    """Why it ended, in words."""
    rows: tuple[dict[str, Any], ...]
    """Every decision, for `rewrites.jsonl`."""

    @property
    def rewrite(self) -> str:
        """The chosen rewrite."""
        return self.candidates[self.chosen].rewrite

    def mean(self, candidate: int) -> float:
        """Mean score of a candidate over the raced items that it was scored on; flattering for the chosen one."""
        return float(np.nanmean(self.scores[candidate, self.raced]))

    @property
    def initial(self) -> int:
        """Index of the initial instruction, or of the first candidate where it did not compete."""
        return next((i for i, candidate in enumerate(self.candidates) if candidate.source == "initial"), 0)

    def to_json(self) -> dict[str, Any]:
        """The sums for `result.json`; the decisions stand in `rows`."""
        return {
            "candidates": len(self.candidates),
            "chosen": self.chosen,
            "source": self.candidates[self.chosen].source,
            "calls": self.calls,
            "full_calls": self.full_calls,
            "extra_calls": self.extra_calls,
            "stopped": self.stopped,
        }


def select(
    candidates: Sequence[Candidate],
    score: Score,
    examples: Sequence[RewriteExample],
    *,
    race: bool = True,
    error: float = 0.05,
    practical_delta: float = 0.01,
    min_items: int = 15,
    max_items: int | None = None,
    complete: bool = False,
    seed: int = 0,
) -> Selection:
    """Choose the candidate with the best mean score; ties go to the initial instruction, then to the shorter text.

    `race` off scores everything. With it, items are shuffled by `seed` and come in blocks, and a candidate stops once
    it is shown to be worse than the leaders; the chance that this befalls the truly best one is at most `error` over
    the whole race. The race ends when one is left, or when the rest are practically equal: what would be lost on
    average by taking the leader now is below `practical_delta` (a share, 0.01 = one point; 0 switches this off).
    Nobody stops before `min_items`, and nobody sees more than `max_items`. `complete` then scores the chosen and the
    initial instruction on all examples, which `corrected_estimate` needs and a run with test rows does not.
    Raises `ConfigError` for settings out of range or scores that are not in [0, 1].
    """
    limit = len(examples) if max_items is None else min(max_items, len(examples))
    _check(candidates, limit, error, practical_delta, min_items)
    order = np.random.default_rng(seed).permutation(len(examples))[:limit]
    scores = np.full((len(candidates), len(examples)), np.nan)
    looks = _looks(min_items, limit) if race else [limit]
    game = _Race(len(candidates), looks, error)
    rows: list[dict[str, Any]] = [
        {"event": "candidate", "index": i, "rewrite": c.rewrite, "source": c.source, "count": c.count}
        for i, c in enumerate(candidates)
    ]
    stopped, seen = ("all items were used" if race else "racing was off"), 0
    for look in looks:
        alive, items = np.flatnonzero(game.alive), order[seen:look]
        scores[np.ix_(alive, items)] = _ask(
            score, [candidates[i].rewrite for i in alive.tolist()], [examples[item] for item in items.tolist()]
        )
        seen = look
        if not race:
            break
        so_far = scores[:, order[:seen]]
        out = game.judge(so_far)
        loss = _expected_loss(so_far[game.alive])
        rows += _round_rows(candidates, so_far, alive, game, out, loss)
        if game.alive.sum() == 1:
            stopped = "one candidate was left"
            break
        if seen < limit and loss < practical_delta:
            stopped = "the candidates left are practically equal"
            break
    used = order[:seen]
    chosen = _best(candidates, scores[:, used], game.alive)
    calls, full_calls = int((~np.isnan(scores)).sum()), len(candidates) * limit
    rows.append(
        {
            "event": "selected",
            "index": chosen,
            "rewrite": candidates[chosen].rewrite,
            "source": candidates[chosen].source,
            "score": float(scores[chosen, used].mean()),
            "items": seen,
            "calls": calls,
            "full_calls": full_calls,
            "stopped": stopped,
        }
    )
    selection = Selection(tuple(candidates), chosen, scores, used, calls, full_calls, 0, stopped, tuple(rows))
    return _complete(selection, score, examples) if complete else selection


def _complete(selection: Selection, score: Score, examples: Sequence[RewriteExample]) -> Selection:
    """Score the chosen and the initial instruction wherever the race did not."""
    scores, extra = selection.scores.copy(), 0
    for index in {selection.chosen, selection.initial}:
        missing = np.flatnonzero(np.isnan(scores[index])).tolist()
        if missing:
            found = _ask(score, [selection.candidates[index].rewrite], [examples[item] for item in missing])
            scores[index, missing] = found[0]
            extra += len(missing)
    return replace(selection, scores=scores, extra_calls=extra)


def corrected_estimate(selection: Selection, *, level: float = 0.95, seed: int = 0) -> CorrectedEstimate:
    """What the chosen rewrite scores and gains without the flattery of the choice; for runs that have no test rows.

    On the raced items a stopped candidate's missing scores are taken to be the chosen one's plus their mean
    difference; the other examples played no part in the choice and need no correction.
    Raises `ConfigError` for a selection without `complete`.
    """
    pair = selection.scores[[selection.chosen, selection.initial]]
    if np.isnan(pair).any():
        raise ConfigError("the chosen or the initial instruction lacks scores; select with complete=True")
    raced = selection.scores[:, selection.raced]
    winner = raced[selection.chosen]
    filled = np.where(np.isnan(raced), winner + np.nanmean(raced - winner, axis=1, keepdims=True), raced)
    return correct_for_selection(
        filled,
        selection.chosen,
        baseline=selection.initial,
        untouched=np.delete(pair, selection.raced, axis=1),
        level=level,
        seed=seed,
    )


class _Race:
    """Who is still in, and each candidate's lead or lag against its field, item by item."""

    def __init__(self, count: int, looks: Sequence[int], error: float):
        self.alive = np.ones(count, dtype=bool)
        self.limit = pocock_limit(tuple(looks), error)
        self.lag = np.zeros((count, looks[-1]))  # field's score minus the candidate's, per item, in [-1, 1]
        self.weights = np.full((count, count), 1 / max(1, count - 1))
        np.fill_diagonal(self.weights, 0)
        self.seen = 0
        self.z = np.zeros(count)

    def judge(self, scores: Floats) -> list[int]:
        """Test every candidate still in on all items so far, (candidate, item); stop and return those that fail."""
        alive, count = np.flatnonzero(self.alive), scores.shape[1]
        fresh = scores[alive, self.seen :]
        self.lag[alive, self.seen : count] = self.weights[np.ix_(alive, alive)] @ fresh - fresh
        self.seen = count
        lag = self.lag[alive, :count]
        mean = lag.sum(axis=1) / (count + PRIOR_ITEMS)
        variance = ((lag**2).sum(axis=1) + PRIOR_ITEMS) / (count + PRIOR_ITEMS) - mean**2
        self.z[alive] = mean * np.sqrt((count + PRIOR_ITEMS) / variance)
        means = scores[alive].mean(axis=1)
        leader = alive[np.argmax(means)]
        out = [int(i) for i in alive if self.z[i] >= self.limit[count] and i != leader]
        self.alive[out] = False
        self._weigh(scores)
        return out

    def _weigh(self, scores: Floats) -> None:
        """Weights of the next field, from the items so far."""
        alive = np.flatnonzero(self.alive)
        means = scores[alive].mean(axis=1)
        for place, i in enumerate(alive):
            rivals = np.delete(alive, place)
            if len(rivals):
                best = rivals[np.argmax(np.delete(means, place))]
                behind = scores[best] - scores[rivals]
                deviation = np.sqrt((behind.var(axis=1) + PRIOR_ITEMS / scores.shape[1]) / scores.shape[1])
                weight = np.exp(-FIELD_SHARPNESS * behind.mean(axis=1) / deviation)
                self.weights[i] = 0
                self.weights[i, rivals] = weight / weight.sum()


@lru_cache(maxsize=32)
def pocock_limit(looks: tuple[int, ...], error: float) -> dict[int, float]:
    """Limit of the test statistic at each look, by items seen.

    Pocock's constant is the quantile of the highest of all looks at a random walk without drift; found by simulation
    with a fixed seed (its own error is about 0.01), then widened from the normal to Student's distribution.
    """
    from scipy.special import ndtr, stdtrit

    steps = np.diff(np.array([0, *looks]))
    walks = np.cumsum(np.random.default_rng(0).standard_normal((100_000, len(looks))) * np.sqrt(steps), axis=1)
    constant = np.quantile((walks / np.sqrt(np.array(looks))).max(axis=1), 1 - error)
    return {look: float(stdtrit(look - 1, ndtr(constant))) for look in looks}


def _looks(first: int, limit: int) -> list[int]:
    """Items seen at each look, growing by `LOOKS_GROWTH`, the last at the limit."""
    looks = [min(first, limit)]
    while looks[-1] < limit:
        following = max(looks[-1] + 1, round(looks[-1] * LOOKS_GROWTH))
        # A last block of a few items is not worth a look.
        looks.append(limit if following * (1 + LOOKS_GROWTH) / 2 > limit else following)
    return looks


def _expected_loss(scores: Floats) -> float:
    """What taking the leader now costs on average: sum over rivals of E[max(0, true score - the leader's)].

    Normal approximation of each paired difference; a sum bounds the mean of the largest.
    """
    if len(scores) < 2:
        return 0.0
    from scipy.special import ndtr

    leader = int(scores.mean(axis=1).argmax())
    lag = scores[leader] - np.delete(scores, leader, axis=0)
    count = scores.shape[1]
    deviation = np.sqrt((lag.var(axis=1) + PRIOR_ITEMS / count) / count)
    z = lag.mean(axis=1) / deviation
    return float((deviation * (np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) - z * ndtr(-z))).sum())


def _round_rows(
    candidates: Sequence[Candidate],
    scores: Floats,
    played: NDArray[np.intp],
    game: _Race,
    out: Sequence[int],
    loss: float,
) -> list[dict[str, Any]]:
    """What one look saw, and who stopped at it."""
    items = scores.shape[1]
    means = {int(i): float(scores[i].mean()) for i in played}
    rival = max(np.flatnonzero(game.alive).tolist(), key=lambda i: means[i])
    first: dict[str, Any] = {
        "event": "race_round",
        "items": items,
        "scores": {str(i): round(mean, 6) for i, mean in means.items()},
        "z": {str(i): round(float(game.z[i]), 3) for i in means},
        "limit": round(game.limit[items], 3),
        "expected_loss": round(loss, 6),
        "alive": np.flatnonzero(game.alive).tolist(),
    }
    return [
        first,
        *(
            {
                "event": "eliminated",
                "index": i,
                "rewrite": candidates[i].rewrite,
                "items": items,
                "score": means[i],
                "rival": rival,
                "rival_score": means[rival],
                "z": round(float(game.z[i]), 3),
                "limit": round(game.limit[items], 3),
            }
            for i in out
        ),
    ]


def _ask(score: Score, rewrites: Sequence[str], examples: Sequence[RewriteExample]) -> Floats:
    found = np.asarray(score(rewrites, examples), dtype=np.float64)
    if found.shape != (len(rewrites), len(examples)):
        raise ConfigError(f"scores have shape {found.shape} for {len(rewrites)} rewrites and {len(examples)} examples")
    if not ((found >= 0) & (found <= 1)).all():
        raise ConfigError("a race needs scores in [0, 1]; use a bounded metric or switch racing off")
    return found


def _best(candidates: Sequence[Candidate], scores: Floats, alive: NDArray[np.bool_]) -> int:
    """Of those still in the race: highest mean, then the initial instruction, then the shorter text."""
    sums = scores.sum(axis=1)
    return min(
        np.flatnonzero(alive).tolist(),
        key=lambda i: (-round(float(sums[i]), 9), candidates[i].source != "initial", len(candidates[i].rewrite), i),
    )


def _check(candidates: Sequence[Candidate], limit: int, error: float, practical_delta: float, min_items: int) -> None:
    if not candidates:
        raise ConfigError("there are no candidates to choose from; propose() always holds the initial instruction")
    if limit < 1:
        raise ConfigError("there are no dev rows to choose on; give at least one")
    if not 0 < error < 0.5:
        raise ConfigError(
            f"race error {error} is outside (0, 0.5); 0.05 stops the best candidate in at most 5% of races"
        )
    if not 0 <= practical_delta < 1:
        raise ConfigError(f"practical_delta {practical_delta} is outside [0, 1); 0.01 means one point")
    if min_items < 2:
        raise ConfigError(f"min_items is {min_items}; a test needs at least 2")
