import numpy as np
import pytest

from prewrite.choosing.candidates import Candidate, merge, propose
from prewrite.choosing.race import corrected_estimate, select
from prewrite.errors import ConfigError
from prewrite.types import RewriteExample

EXAMPLES = [RewriteExample("Classify.", f"message {i}", "yes", "classification") for i in range(200)]


class Table:
    """Scores read from a (candidate, item) table; counts what is asked."""

    def __init__(self, candidates, table):
        self.rows = {candidate.rewrite: row for candidate, row in zip(candidates, table, strict=True)}
        self.calls = 0
        self.batches = []

    def __call__(self, rewrites, examples):
        self.batches.append((len(rewrites), len(examples)))
        self.calls += len(rewrites) * len(examples)
        items = [int(example.input.split()[1]) for example in examples]
        return np.array([[self.rows[rewrite][item] for item in items] for rewrite in rewrites])


def candidates(count):
    return [Candidate("Classify.", "initial"), *(Candidate(f"Rewrite number {i}.", "sample") for i in range(1, count))]


def table(means, seed=0, items=200, shared=0.8):
    """Right-or-wrong scores with these true means, hard items being hard for all."""
    from scipy.special import ndtri

    rng = np.random.default_rng(seed)
    luck = np.sqrt(shared) * rng.normal(size=items) + np.sqrt(1 - shared) * rng.normal(size=(len(means), items))
    return (luck < ndtri(np.array(means))[:, None]).astype(float)


class FixedRewriter:
    def greedy(self, instruction):
        return "Better."

    def sample_rewrites(self, instruction, count, *, seed):
        return ["Better.", "", "Other.", "  ", instruction, "Other."][:count]


def test_propose_puts_the_initial_instruction_first_and_merges_duplicates():
    assert propose(FixedRewriter(), "Start.", 6) == [
        Candidate("Start.", "initial", 2),
        Candidate("Better.", "greedy", 2),
        Candidate("Other.", "sample", 2),
    ]


def test_propose_with_no_samples_is_the_greedy_strategy():
    assert [c.source for c in propose(FixedRewriter(), "Start.", 0)] == ["initial", "greedy"]


def test_white_space_around_a_rewrite_makes_no_new_candidate():
    assert merge([Candidate("A", "greedy"), Candidate(" A\n", "sample")]) == [Candidate("A", "greedy", 2)]


def test_a_clear_winner_is_found_with_few_calls():
    field = candidates(12)
    score = Table(field, table([0.5] * 11 + [0.95]))
    found = select(field, score, EXAMPLES, practical_delta=0)
    assert found.chosen == 11 and found.rewrite == "Rewrite number 11."
    assert found.calls == score.calls < 0.25 * found.full_calls
    assert found.stopped == "one candidate was left"


def test_without_racing_everything_is_scored_in_one_call():
    field = candidates(4)
    score = Table(field, table([0.5, 0.6, 0.7, 0.8]))
    found = select(field, score, EXAMPLES, race=False)
    assert score.batches == [(4, 200)]
    assert found.calls == found.full_calls == 800 and not np.isnan(found.scores).any()
    assert [row["event"] for row in found.rows] == ["candidate"] * 4 + ["selected"]


def test_every_candidate_sees_the_same_items_in_the_same_order():
    field = candidates(5)
    found = select(field, Table(field, table([0.4, 0.5, 0.9, 0.6, 0.7])), EXAMPLES, practical_delta=0)
    seen = ~np.isnan(found.scores)
    sizes = seen.sum(axis=1)
    for fewer, more in zip(np.argsort(sizes), np.argsort(sizes)[1:], strict=False):
        assert (seen[fewer] <= seen[more]).all()


def test_the_same_seed_gives_the_same_race():
    field = candidates(6)
    scores = table([0.5, 0.55, 0.6, 0.65, 0.7, 0.75])
    first, second = (select(field, Table(field, scores), EXAMPLES, seed=3) for _ in range(2))
    assert first.rows == second.rows


def test_every_elimination_is_written_down_with_its_reason():
    field = candidates(8)
    found = select(field, Table(field, table([0.3] * 7 + [0.9])), EXAMPLES, practical_delta=0)
    out = [row for row in found.rows if row["event"] == "eliminated"]
    assert {row["index"] for row in out} == set(range(7))
    for row in out:
        assert row["z"] >= row["limit"] and row["rival_score"] > row["score"] and row["items"] >= 15
    assert found.rows[-1]["event"] == "selected" and found.rows[-1]["calls"] == found.calls


def test_ties_go_to_the_initial_instruction_then_to_the_shorter_text():
    equal = np.tile(table([0.6]), (3, 1))
    field = [Candidate("A long rewrite.", "sample"), Candidate("Short.", "sample"), Candidate("Start it.", "initial")]
    assert select(field, Table(field, equal), EXAMPLES, race=False).rewrite == "Start it."
    assert select(field[:2], Table(field[:2], equal[:2]), EXAMPLES, race=False).rewrite == "Short."


def test_candidates_that_answer_alike_end_the_race_early():
    scores = np.tile(table([0.7]), (6, 1))
    field = candidates(6)
    found = select(field, Table(field, scores), EXAMPLES, practical_delta=0.03)
    assert found.stopped == "the candidates left are practically equal"
    assert found.calls < found.full_calls
    assert found.candidates[found.chosen].source == "initial"


def test_one_candidate_needs_only_the_first_look():
    found = select(candidates(1), Table(candidates(1), table([0.5])), EXAMPLES)
    assert found.chosen == 0 and found.calls == 15


def test_max_items_bounds_the_race():
    field = candidates(3)
    score = Table(field, table([0.60, 0.61, 0.62]))
    assert select(field, score, EXAMPLES, max_items=50, practical_delta=0).full_calls == 150
    assert score.calls <= 150


def test_fewer_items_than_the_first_look_are_all_used():
    field = candidates(3)
    found = select(field, Table(field, table([0.2, 0.5, 0.8])), EXAMPLES[:8])
    assert found.calls == 24 and found.stopped == "all items were used"


def test_partial_credit_can_race():
    field = candidates(4)
    rng = np.random.default_rng(0)
    scores = np.clip(rng.normal([[0.3], [0.35], [0.4], [0.8]], 0.15, (4, 200)), 0, 1)
    found = select(field, Table(field, scores), EXAMPLES)
    assert found.chosen == 3 and found.calls < found.full_calls / 2


def test_the_best_of_equals_is_dropped_no_oftener_than_the_stated_error():
    field, dropped, races = candidates(8), 0, 120
    for seed in range(races):
        found = select(
            field, Table(field, table([0.6] * 8, seed)), EXAMPLES[:100], error=0.1, practical_delta=0, seed=seed
        )
        dropped += any(row["event"] == "eliminated" and row["index"] == 1 for row in found.rows)
    # At a true rate of 0.1, 20 or more of 120 has probability 0.02.
    assert dropped < 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"error": 0.7}, "race error 0.7"),
        ({"practical_delta": -0.1}, "practical_delta -0.1"),
        ({"min_items": 1}, "min_items is 1"),
        ({"max_items": 0}, "no dev rows"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    field = candidates(2)
    with pytest.raises(ConfigError, match=message):
        select(field, Table(field, table([0.5, 0.6])), EXAMPLES, **settings)


def test_scores_outside_0_to_1_are_refused():
    field = candidates(2)
    with pytest.raises(ConfigError, match="needs scores in"):
        select(field, Table(field, np.full((2, 200), 3.0)), EXAMPLES)


def test_the_corrected_estimate_of_a_race_is_below_the_flattered_mean():
    field = candidates(16)
    optimism = []
    for seed in range(12):
        found = select(field, Table(field, table([0.6] * 16, seed)), EXAMPLES, complete=True, seed=seed)
        estimate = corrected_estimate(found)
        assert estimate.candidates == 16 and estimate.low < estimate.score < estimate.high
        optimism.append(found.mean(found.chosen) - estimate.score)
    assert np.mean(optimism) > 0.01


def test_completing_scores_the_chosen_and_the_initial_everywhere_and_nothing_else():
    field = candidates(6)
    scores = table([0.4, 0.5, 0.5, 0.5, 0.5, 0.9])
    raced = select(field, Table(field, scores), EXAMPLES)
    score = Table(field, scores)
    full = select(field, score, EXAMPLES, complete=True)
    assert (full.chosen, full.calls, full.mean(5)) == (raced.chosen, raced.calls, raced.mean(5))
    assert not np.isnan(full.scores[[0, 5]]).any() and full.extra_calls > 0
    assert score.calls == full.calls + full.extra_calls


def test_a_corrected_estimate_needs_complete_scores():
    field = candidates(6)
    found = select(field, Table(field, table([0.4, 0.5, 0.5, 0.5, 0.5, 0.9])), EXAMPLES)
    with pytest.raises(ConfigError, match="complete=True"):
        corrected_estimate(found)
