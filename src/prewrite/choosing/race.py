"""Choosing among candidates on the dev set: PRewrite-S, the best of K samples.

The paper scores every candidate on every dev item. Here candidates race: all see the same items in the same order, and
one that is shown to be worse than the leaders stops (`elimination`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prewrite.choosing.candidates import Candidate
from prewrite.choosing.elimination import Elimination, expected_loss, looks_at
from prewrite.choosing.selection_bias import CorrectedEstimate, correct_for_selection
from prewrite.choosing.stats import Floats
from prewrite.errors import ConfigError, NoAnswerError
from prewrite.scoring.left_out import answered_columns
from prewrite.types import RewriteExample

Score = Callable[[Sequence[str], Sequence[RewriteExample]], Floats]
"""Scores in [0, 1], shape (rewrites, examples); `Evaluator.score`."""


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
    left_out: NDArray[np.intp] | None = None
    """After `complete`, the examples that the chosen or the initial instruction got no answer to."""

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
    answered = np.array([], dtype=np.intp)  # the items so far, less those that are left out
    looks = looks_at(min_items, limit) if race else [limit]
    elimination = Elimination(len(candidates), looks, error)
    rows: list[dict[str, Any]] = [
        {"event": "candidate", "index": i, "rewrite": c.rewrite, "source": c.source, "count": c.count}
        for i, c in enumerate(candidates)
    ]
    stopped, seen = ("all items were used" if race else "racing was off"), 0
    for look in looks:
        alive, items = np.flatnonzero(elimination.alive), order[seen:look]
        found = _ask(
            score, [candidates[i].rewrite for i in alive.tolist()], [examples[item] for item in items.tolist()]
        )
        scores[np.ix_(alive, items)] = found
        answered, seen = np.concatenate([answered, items[answered_columns(found)]]), look
        if not answered.size:
            raise NoAnswerError("none of the first dev rows got an answer, so there is nothing to choose on")
        if not race:
            break
        so_far = scores[:, answered]
        out = elimination.judge(so_far)
        loss = expected_loss(so_far[elimination.alive])
        rows += _round_rows(candidates, so_far, alive, elimination, out, loss)
        if elimination.alive.sum() == 1:
            stopped = "one candidate was left"
            break
        if seen < limit and loss < practical_delta:
            stopped = "the candidates left are practically equal"
            break
    used = answered
    chosen = _best(candidates, scores[:, used], elimination.alive)
    calls, full_calls = int((~np.isnan(scores)).sum()), len(candidates) * limit
    rows.append(
        {
            "event": "selected",
            "index": chosen,
            "rewrite": candidates[chosen].rewrite,
            "source": candidates[chosen].source,
            "score": float(scores[chosen, used].mean()),
            "items": len(used),
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
    lacking = ~answered_columns(scores[[selection.chosen, selection.initial]])
    scores[:, lacking] = np.nan
    raced = selection.raced[~lacking[selection.raced]]
    return replace(selection, scores=scores, raced=raced, extra_calls=extra, left_out=np.flatnonzero(lacking))


def corrected_estimate(selection: Selection, *, level: float = 0.95, seed: int = 0) -> CorrectedEstimate:
    """What the chosen rewrite scores and gains without the flattery of the choice; for runs that have no test rows.

    On the raced items a stopped candidate's missing scores are taken to be the chosen one's plus their mean
    difference; the other examples played no part in the choice and need no correction.
    Raises `ConfigError` for a selection without `complete`.
    """
    pair = selection.scores[[selection.chosen, selection.initial]]
    left_out = np.array([], dtype=np.intp) if selection.left_out is None else selection.left_out
    if np.isnan(np.delete(pair, left_out, axis=1)).any():
        raise ConfigError("the chosen or the initial instruction lacks scores; select with complete=True")
    raced = selection.scores[:, selection.raced]
    winner = raced[selection.chosen]
    filled = np.where(np.isnan(raced), winner + np.nanmean(raced - winner, axis=1, keepdims=True), raced)
    return correct_for_selection(
        filled,
        selection.chosen,
        baseline=selection.initial,
        untouched=np.delete(pair, [*selection.raced, *left_out], axis=1),
        level=level,
        seed=seed,
    )


def _round_rows(
    candidates: Sequence[Candidate],
    scores: Floats,
    played: NDArray[np.intp],
    elimination: Elimination,
    out: Sequence[int],
    loss: float,
) -> list[dict[str, Any]]:
    """What one look saw, and who stopped at it."""
    items = scores.shape[1]
    means = {int(i): float(scores[i].mean()) for i in played}
    rival = max(np.flatnonzero(elimination.alive).tolist(), key=lambda i: means[i])
    first: dict[str, Any] = {
        "event": "race_round",
        "items": items,
        "scores": {str(i): round(mean, 6) for i, mean in means.items()},
        "z": {str(i): round(float(elimination.z[i]), 3) for i in means},
        "limit": round(elimination.limit_at(items), 3),
        "expected_loss": round(loss, 6),
        "alive": np.flatnonzero(elimination.alive).tolist(),
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
                "z": round(float(elimination.z[i]), 3),
                "limit": round(elimination.limit_at(items), 3),
            }
            for i in out
        ),
    ]


def _ask(score: Score, rewrites: Sequence[str], examples: Sequence[RewriteExample]) -> Floats:
    found = np.asarray(score(rewrites, examples), dtype=np.float64)
    if found.shape != (len(rewrites), len(examples)):
        raise ConfigError(f"scores have shape {found.shape} for {len(rewrites)} rewrites and {len(examples)} examples")
    answered = found[:, answered_columns(found)]
    if not ((answered >= 0) & (answered <= 1)).all():
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
