"""Proposing rewrites and choosing one on the dev set: PRewrite-I (greedy), PRewrite-S (best of K samples).

The paper scores every candidate on every dev item. Here candidates race: all see the same items in the same order, and
one that is shown to be worse than the leaders stops. Candidate i plays a betting game against them: it stakes a share
of its capital on d = (weighted leaders' score - i's score) at each item, with weights chosen from earlier items only.
If i were the best, no bet on d > 0 could gain on average, whatever the weights; so the capital is a nonnegative
supermartingale, and by Ville's inequality it ever reaches 1/error with probability at most `error`. This holds at every
look and for all candidates at once, since just one test, the best candidate's own, must not fail. Betting: Waudby-Smith
and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024). One game against a weighted
field in place of one against each rival is our choice: it needs no union bound over pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from prewrite.errors import ConfigError
from prewrite.types import RewriteExample

Floats = NDArray[np.float64]
Source = Literal["initial", "greedy", "sample", "untrained", "few_shot", "user"]
Score = Callable[[Sequence[str], Sequence[RewriteExample]], Floats]
"""Scores in [0, 1], shape (rewrites, examples); `Evaluator.score`."""

STAKES = np.geomspace(0.02, 0.98, 12)
"""Shares of the capital staked per item; the capital is split evenly over them, so none has to be guessed."""
LEADERS_SHARPNESS = 2.0
"""How fast a rival's weight falls with its distance to the leader, in standard errors of that distance."""


class Rewriter(Protocol):
    """Anything that proposes rewrites of an instruction."""

    def greedy(self, instruction: str) -> str:
        """The most likely rewrite; empty if the completion held none."""
        ...

    def sample(self, instruction: str, count: int, *, seed: int) -> list[str]:
        """`count` rewrites at temperature 1, duplicates and empty ones included."""
        ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """A rewrite that may be chosen, and where it came from."""

    rewrite: str
    source: Source
    count: int = 1
    """How often it was proposed; exact duplicates are one candidate under their first source."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What was chosen, and the scores that it rests on."""

    candidates: tuple[Candidate, ...]
    chosen: int
    """Index into `candidates`."""
    scores: Floats
    """(candidate, example) in the order of `examples`; NaN where the race had no need to ask."""
    calls: int
    """Candidate-item pairs that were scored."""
    full_calls: int
    """Pairs that scoring everything would have taken."""
    stopped: str
    """Why it ended, in words."""
    rows: tuple[dict[str, Any], ...]
    """Every decision, for `rewrites.jsonl`."""

    @property
    def rewrite(self) -> str:
        """The chosen rewrite."""
        return self.candidates[self.chosen].rewrite


def propose(rewriter: Rewriter, instruction: str, count: int, *, seed: int = 0) -> list[Candidate]:
    """The initial instruction, the greedy rewrite, then `count` samples; exact duplicates merged, empty ones dropped."""
    if count < 0:
        raise ConfigError(f"strategy asks for {count} samples; use 0 for the greedy rewrite alone, or more")
    proposed: list[tuple[str, Source]] = [(instruction, "initial"), (rewriter.greedy(instruction), "greedy")]
    if count:
        proposed += [(rewrite, "sample") for rewrite in rewriter.sample(instruction, count, seed=seed)]
    return merge([Candidate(rewrite, source) for rewrite, source in proposed])


def merge(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Exact duplicates as one candidate under their first source; rewrites of white space dropped."""
    kept: dict[str, Candidate] = {}
    for candidate in candidates:
        text = candidate.rewrite.strip()
        if text:
            first = kept.get(text, Candidate(candidate.rewrite, candidate.source, 0))
            kept[text] = Candidate(first.rewrite, first.source, first.count + candidate.count)
    return list(kept.values())


def select(
    candidates: Sequence[Candidate],
    score: Score,
    examples: Sequence[RewriteExample],
    *,
    race: bool = True,
    error: float = 0.05,
    practical_delta: float = 0.0,
    block: int = 10,
    min_items: int = 20,
    max_items: int | None = None,
    seed: int = 0,
) -> Selection:
    """Choose the candidate with the best mean score; ties go to the initial instruction, then to the shorter text.

    `race` off scores everything. With it, items come in blocks, shuffled by `seed`, and a candidate stops once it is
    shown to be worse than the leaders, or, with `practical_delta` > 0, shown not to be better than them by that much
    (a share, 0.01 = 1 point). The chance that the truly best candidate is stopped (with `practical_delta`: though it
    leads by that much) is at most `error` over the whole race. No candidate stops before `min_items`.
    Raises `ConfigError` for settings out of range or scores that are not in [0, 1].
    """
    _check(candidates, examples, error, practical_delta, block, min_items)
    limit = len(examples) if max_items is None else min(max_items, len(examples))
    order = np.random.default_rng(seed).permutation(len(examples))[:limit]
    scores = np.full((len(candidates), len(examples)), np.nan)
    rows: list[dict[str, Any]] = [
        {"event": "candidate", "index": i, "rewrite": c.rewrite, "source": c.source, "count": c.count}
        for i, c in enumerate(candidates)
    ]
    game = _Race(len(candidates), error, practical_delta)
    step = block if race else limit
    stopped = "every candidate was scored on every item" if not race else "the items were used up"
    seen = 0
    while seen < limit:
        items = order[seen : seen + step]
        alive = np.flatnonzero(game.alive)
        fresh = _ask(score, [candidates[i].rewrite for i in alive], [examples[i] for i in items])
        scores[np.ix_(alive, items)] = fresh
        seen += len(items)
        if not race:
            break
        game.play(alive, fresh)
        out = game.drop(scores[:, order[:seen]]) if seen >= min_items else {}
        means = scores[:, order[:seen]].mean(axis=1, where=~np.isnan(scores[:, order[:seen]]))
        rows.append(
            {
                "event": "race_round",
                "items": seen,
                "scores": {str(i): round(float(means[i]), 6) for i in alive},
                "evidence": {str(i): round(float(min(game.peak[i], 1e9)), 4) for i in alive},
                "alive": np.flatnonzero(game.alive).tolist(),
            }
        )
        rows.extend(
            {
                "event": "eliminated",
                "index": i,
                "rewrite": candidates[i].rewrite,
                "items": seen,
                "score": float(means[i]),
                "rival": rival,
                "rival_score": float(means[rival]),
                "evidence": float(min(game.peak[i], 1e9)),
                "threshold": 1 / error,
            }
            for i, rival in out.items()
        )
        if game.alive.sum() == 1:
            stopped = "one candidate was left"
            break
    chosen = _best(candidates, scores[:, order[:seen]], game.alive)
    calls, full_calls = int((~np.isnan(scores)).sum()), len(candidates) * limit
    used = order[:seen]
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
    return Selection(tuple(candidates), chosen, scores, calls, full_calls, stopped, tuple(rows))


class _Race:
    """The capital that is bet against each candidate's being the best."""

    def __init__(self, count: int, error: float, practical_delta: float):
        self.alive = np.ones(count, dtype=bool)
        self.threshold = 1 / error
        self.practical_delta = practical_delta
        self.capital = np.ones((count, len(STAKES)))
        self.peak = np.ones(count)  # Ville's inequality bounds the highest capital ever reached
        self.weights = np.full((count, count), 1 / max(1, count - 1))
        np.fill_diagonal(self.weights, 0)

    def play(self, alive: NDArray[np.intp], fresh: Floats) -> None:
        """Settle the bets on new items; `fresh` is (alive, items). Weights date from earlier items."""
        if len(alive) < 2:
            return
        field = self.weights[np.ix_(alive, alive)] @ fresh
        lead = (field - fresh + self.practical_delta) / (1 + self.practical_delta)  # in [-1, 1], (alive, items)
        growth = np.cumprod(1 + lead[:, None, :] * STAKES[None, :, None], axis=2)
        path = (self.capital[alive][:, :, None] * growth).mean(axis=1)
        self.peak[alive] = np.maximum(self.peak[alive], path.max(axis=1))
        self.capital[alive] *= growth[:, :, -1]

    def drop(self, scores: Floats) -> dict[int, int]:
        """Stop the candidates that are shown to be worse; candidate to its leading rival. Sets the next weights."""
        means = scores.mean(axis=1)
        leader = int(np.nanargmax(np.where(self.alive, means, -np.inf)))
        out = [i for i in np.flatnonzero(self.alive & (self.peak >= self.threshold)).tolist() if i != leader]
        self.alive[out] = False
        self._reweigh(scores, means)
        return dict.fromkeys(out, leader)

    def _reweigh(self, scores: Floats, means: Floats) -> None:
        alive = np.flatnonzero(self.alive)
        self.weights[:] = 0
        for i in alive:
            rivals = alive[alive != i]
            if not len(rivals):
                return
            best = rivals[np.argmax(means[rivals])]
            behind = scores[best] - scores[rivals]
            error = np.maximum(behind.std(axis=1), 0.1) / np.sqrt(scores.shape[1])
            weight = np.exp(-LEADERS_SHARPNESS * behind.mean(axis=1) / error)
            self.weights[i, rivals] = weight / weight.sum()


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


def _check(
    candidates: Sequence[Candidate],
    examples: Sequence[RewriteExample],
    error: float,
    practical_delta: float,
    block: int,
    min_items: int,
) -> None:
    if not candidates:
        raise ConfigError("there are no candidates to choose from; propose() always holds the initial instruction")
    if not examples:
        raise ConfigError("there are no dev rows to choose on; give at least one")
    if not 0 < error < 1:
        raise ConfigError(
            f"race error {error} is outside (0, 1); 0.05 stops the best candidate in at most 5% of races"
        )
    if not 0 <= practical_delta < 1:
        raise ConfigError(f"practical_delta {practical_delta} is outside [0, 1); 0.01 means one point")
    if block < 1 or min_items < 1:
        raise ConfigError(f"block {block} and min_items {min_items} must be at least 1")
