"""Successive halving: many candidates on few rows, few candidates on many rows, within a budget of task-model calls.

Karnin, Koren and Somekh, ICML 2013; Jamieson and Talwalkar, arXiv 1502.07943. Each round keeps the best quarter of the
candidates and shows them three times as many rows, so that all rounds cost about the same. All candidates see the same
rows in the same order, and no pair of candidate and row is asked for twice. How many start follows from the budget,
and is known before anything is asked: `plan_rounds`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from prewrite.errors import ConfigError

T = TypeVar("T")
Rows = NDArray[np.intp]

FIRST_ROWS = 8
KEPT = 4
"""One of so many candidates goes on to the next round."""
GROWTH = 3
"""The next round's rows, as a multiple of this one's."""
FINALISTS = 2
"""So many are left in the last round, the incumbent not counted."""
LAST_SHARE = 8
"""The last round has at least this part of the calls as rows: what is shipped must be told from luck."""


class Round(NamedTuple):
    """So many candidates, scored on the first so many rows."""

    candidates: int
    rows: int


def plan_rounds(calls: int, rows: int, *, most: int | None = None) -> list[Round]:
    """Rounds that take at most `calls` calls on at most `rows` rows, with as many candidates at first as that allows.

    The incumbent is one of the candidates of every round. `most` limits the candidates of the first round. Raises
    `ConfigError` for a budget under which not even the incumbent and one rival can be compared on `FIRST_ROWS` rows.

    >>> plan_rounds(1000, 300)
    [Round(candidates=59, rows=8), Round(candidates=14, rows=24), Round(candidates=3, rows=125)]
    """
    if rows < 1:
        raise ConfigError("there are no dev rows to choose on; give at least one")
    least = 2 * min(FIRST_ROWS, rows)
    if calls < least:
        raise ConfigError(
            f"search_calls {calls} cannot compare two prompts on {least // 2} rows; give at least {least}"
        )
    ceiling = most if most is not None else calls // min(FIRST_ROWS, rows)
    last_rows = min(rows, calls // LAST_SHARE)
    for first in range(max(2, ceiling), 1, -1):
        plan = _rounds(first, rows, last_rows)
        spent = calls_of(plan)
        if spent <= calls:
            last, before = plan[-1], plan[-2].rows if len(plan) > 1 else 0
            more = (calls - spent) // last.candidates
            return [*plan[:-1], Round(last.candidates, max(before, min(rows, last.rows + more)))]
    return [Round(2, min(rows, calls // 2))]


def _rounds(first: int, rows: int, last_rows: int) -> list[Round]:
    plan = [Round(first, min(FIRST_ROWS, rows))]
    while plan[-1].candidates > FINALISTS + 1 and plan[-1].rows < rows:
        candidates, seen = plan[-1]
        plan.append(Round(max(FINALISTS + 1, candidates // KEPT), min(rows, seen * GROWTH)))
    return [*plan[:-1], Round(plan[-1].candidates, max(plan[-1].rows, last_rows))]


def calls_of(plan: Sequence[Round]) -> int:
    """How many calls the rounds take: each asks only for the rows that its candidates have not seen."""
    seen = [0, *(part.rows for part in plan)]
    return sum(part.candidates * (part.rows - before) for part, before in zip(plan, seen, strict=False))


class Board(Generic[T]):
    """Results of candidates on rows, in one order for all; asks for what is missing and counts what it asked for.

    Args:
        ask: (candidates, numbers of rows) -> one list of results per candidate.
        rows: how many rows there are.
        seed: of the order in which they are shown.
    """

    def __init__(self, ask: Callable[[Sequence[int], Sequence[int]], Sequence[Sequence[T]]], rows: int, *, seed: int):
        self.ask = ask
        self.order = np.random.default_rng([seed, *b"rows"]).permutation(rows)
        self.results: dict[int, list[T]] = {}
        self.calls = 0

    def show(self, candidates: Sequence[int], rows: int) -> None:
        """Have every one of `candidates` seen the first `rows` rows."""
        missing: dict[int, list[int]] = {}
        for candidate in candidates:
            missing.setdefault(len(self.results.setdefault(candidate, [])), []).append(candidate)
        for seen, those in missing.items():
            if seen < rows:
                found = self.ask(those, self.order[seen:rows].tolist())
                self.calls += len(those) * (rows - seen)
                for candidate, results in zip(those, found, strict=True):
                    self.results[candidate] += results

    def rows_of(self, candidate: int) -> Rows:
        """The rows that a candidate has seen, in their order."""
        return self.order[: len(self.results[candidate])]


def halve(
    board: Board[T],
    candidates: Sequence[int],
    plan: Sequence[Round],
    worth: Callable[[int], float],
    *,
    incumbent: int,
    size: Callable[[int], int] = lambda candidate: 0,
) -> list[int]:
    """Play the rounds; the candidates of the last one, best first.

    Args:
        candidates: those that start; with more than the first round takes, the first ones.
        worth: how good a candidate is by what it has seen so far, higher is better.
        incumbent: stays in every round.
        size: of a candidate; ties go to the smaller one, then to the incumbent, then to the earlier one.
    """
    alive = [incumbent, *(candidate for candidate in candidates if candidate != incumbent)]
    for number, part in enumerate(plan):
        if number:
            rivals = sorted((c for c in alive if c != incumbent), key=lambda c: (-worth(c), size(c), c))
            alive = [incumbent, *rivals]
        alive = alive[: part.candidates]
        board.show(alive, part.rows)
    return sorted(alive, key=lambda c: (-worth(c), size(c), c != incumbent, c))
