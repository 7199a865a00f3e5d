"""Successive halving spends no call more than it may, asks for nothing twice, and finds what is best."""

import numpy as np
import pytest

from prewrite.choosing.halving import Board, Round, calls_of, halve, plan_rounds
from prewrite.errors import ConfigError


@pytest.mark.parametrize("calls", [16, 17, 50, 100, 333, 500, 1000, 1200, 2700, 10_000, 100_000])
@pytest.mark.parametrize("rows", [1, 5, 8, 20, 100, 300, 2000])
def test_a_plan_never_exceeds_its_calls_or_rows_and_narrows(calls, rows):
    plan = plan_rounds(calls, rows)
    assert calls_of(plan) <= calls
    assert all(part.rows <= rows and part.candidates >= 2 for part in plan)
    assert [part.candidates for part in plan] == sorted((part.candidates for part in plan), reverse=True)
    assert [part.rows for part in plan] == sorted(part.rows for part in plan)


def test_what_is_shipped_is_told_from_luck_on_many_rows():
    assert [plan_rounds(calls, 300)[-1] for calls in (500, 1000, 2700)] == [Round(3, 73), Round(3, 125), Round(3, 300)]


def test_calls_are_those_of_rows_not_seen_before():
    # 10 x 8 + 4 x (24 - 8)
    assert calls_of([Round(10, 8), Round(4, 24)]) == 80 + 64


def test_more_calls_start_with_more_candidates():
    assert [plan_rounds(calls, 300)[0].candidates for calls in (100, 500, 1000, 2700)] == [6, 30, 59, 136]
    assert plan_rounds(2700, 300, most=20)[0] == Round(20, 8)


def test_too_few_calls_are_an_error():
    with pytest.raises(ConfigError, match="search_calls 15 cannot compare two prompts on 8 rows; give at least 16"):
        plan_rounds(15, 100)
    with pytest.raises(ConfigError, match="no dev rows"):
        plan_rounds(100, 0)


def board_of(truth, asked):
    def ask(candidates, rows):
        asked.extend((c, r) for c in candidates for r in rows)
        return [[truth[c, r] for r in rows] for c in candidates]

    return Board(ask, truth.shape[1], seed=0)


def test_the_best_is_found_nothing_is_asked_twice_and_the_incumbent_stays_to_the_end():
    rng = np.random.default_rng(0)
    quality = np.full(40, 0.4)
    quality[17], quality[0] = 0.9, 0.1
    truth = (rng.random((40, 200)) < quality[:, None]).astype(float)
    asked = []
    board = board_of(truth, asked)
    plan = plan_rounds(800, 200, most=40)
    ranked = halve(board, range(40), plan, lambda c: float(np.mean(board.results[c])), incumbent=0)
    assert ranked[0] == 17
    assert 0 in ranked and len(board.results[0]) == plan[-1].rows
    assert len(asked) == len(set(asked)) == board.calls <= 800


def test_a_second_halving_goes_on_from_what_was_seen():
    truth = np.tile(np.linspace(0, 1, 6)[:, None], (1, 50))
    asked = []
    board = board_of(truth, asked)

    def worth(candidate):
        return float(np.mean(board.results[candidate]))

    halve(board, range(3), [Round(3, 10)], worth, incumbent=0)
    ranked = halve(board, range(2, 6), [Round(5, 10), Round(2, 20)], worth, incumbent=2)
    assert ranked == [5, 2]
    assert len(asked) == len(set(asked)) == board.calls == 3 * 10 + 3 * 10 + 2 * 10


def test_equal_candidates_keep_the_incumbent():
    board = board_of(np.ones((4, 20)), [])
    assert halve(board, range(4), [Round(4, 20)], lambda c: 1.0, incumbent=2) == [2, 0, 1, 3]
    sizes = {0: 5, 1: 3, 2: 4, 3: 3}
    assert halve(board, range(4), [Round(4, 20)], lambda c: 1.0, incumbent=2, size=sizes.get) == [1, 3, 2, 0]
    assert halve(board, range(4), [Round(4, 2), Round(2, 20)], lambda c: 1.0, incumbent=2, size=sizes.get) == [1, 2]
