"""GEPA, the real package, searches with a rewriter of ours as the author of its proposals."""

from dataclasses import dataclass

import pytest

from prewrite.errors import ConfigError
from prewrite.interop.gepa import RewriterProposer


class Wordings:
    """A rewriter that knows a few wordings, and draws them by the seed."""

    def __init__(self, *texts):
        self.texts = texts

    def greedy(self, instruction):
        return self.texts[0]

    def sample_rewrites(self, instruction, count, *, seed):
        return [self.texts[(seed + draw) % len(self.texts)] for draw in range(count)]


@dataclass
class Rows:
    """What GEPA asks of a task: scores of a candidate on rows. A wording that says "politely" is right on all."""

    propose_new_texts = None

    def evaluate(self, batch, candidate, capture_traces=False):
        from gepa.core.adapter import EvaluationBatch

        scores = [1.0 if "politely" in candidate["system"] else 0.25 for _ in batch]
        return EvaluationBatch(
            outputs=list(batch), scores=scores, trajectories=list(batch) if capture_traces else None
        )

    def make_reflective_dataset(self, candidate, eval_batch, components_to_update):
        return {name: [{"row": row} for row in eval_batch.trajectories] for name in components_to_update}


def optimize(rewriter, seed_text="Answer the mail."):
    gepa = pytest.importorskip("gepa", reason="gepa is not installed; `pip install gepa`")
    return gepa.optimize(
        seed_candidate={"system": seed_text},
        trainset=list(range(6)),
        valset=list(range(4)),
        adapter=Rows(),
        custom_candidate_proposer=RewriterProposer(rewriter),
        max_metric_calls=60,
        display_progress_bar=False,
    )


def test_gepa_finds_the_better_wording_among_those_of_the_rewriter():
    found = optimize(Wordings("Answer the mail.", "", "Answer it.", "Answer the mail politely."))
    assert found.best_candidate == {"system": "Answer the mail politely."}
    assert found.val_aggregate_scores[found.best_idx] == 1.0


def test_gepa_keeps_its_text_where_the_rewriter_has_nothing_new():
    assert optimize(Wordings("", " ", "Answer the mail.")).best_candidate == {"system": "Answer the mail."}


def test_a_trained_rewriter_proposes(request):
    pytest.importorskip("gepa", reason="gepa is not installed; `pip install gepa`")
    pytest.importorskip("torch", reason="torch is not installed; the tests of `make test` have it")
    from prewrite.rewriter.rewriter import Rewriter

    rewriter, seen = Rewriter.load(request.getfixturevalue("run")), []

    class Watched:
        greedy = rewriter.greedy

        def sample_rewrites(self, instruction, count, *, seed):
            seen.append(rewriter.sample_rewrites(instruction, count, seed=seed))
            return seen[-1]

    optimize(Watched(), "solve the task")
    assert seen and all(len(drawn) == 8 for drawn in seen) and len({tuple(drawn) for drawn in seen}) > 1


def test_no_wording_is_proposed_twice_and_only_what_is_asked_for_changes():
    propose = RewriterProposer(Wordings("b", "c"))
    both = {"system": "a", "other": "z"}
    asked = [propose(both, {}, ["system"]) for _ in range(3)]
    assert asked == [{"system": "b"}, {"system": "c"}, {"system": "a"}]


def test_an_empty_text_is_refused():
    with pytest.raises(ConfigError, match="empty text"):
        RewriterProposer(Wordings("b"))({"system": " "}, {}, ["system"])
