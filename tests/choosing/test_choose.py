"""One way to choose a rewrite, for training, for its control and for `prewrite rewrite`."""

import pytest

from prewrite.choosing.candidates import Candidate
from prewrite.choosing.choose import choose_rewrite, most_calls, split_by_guards
from prewrite.scoring.constraints import Constraints
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.fidelity import Fidelity
from prewrite.scoring.rewards import TaskReward
from prewrite.task_models.scripted import ScriptedTaskModel
from prewrite.types import RewriteExample

INSTRUCTION = "Sort the mail."
ROWS = [RewriteExample(INSTRUCTION, f"mail {number}", "yes", task="qa") for number in range(20)]


class Writer:
    """Writes "plain" greedily, and as samples "rewrite N" with N counting up from 100 * seed; `variety` of them."""

    def __init__(self, variety=1000):
        self.variety = variety

    def greedy(self, instruction):
        return "plain"

    def sample_rewrites(self, instruction, count, *, seed):
        return [f"rewrite {100 * seed + number % self.variety}" for number in range(count)]


class Judge:
    """Texts with a 7 in them tell nothing of the instruction, others all."""

    def target_logprobs(self, prompts, targets):
        return [-9.0 if "7" in prompt or "Answer." in prompt else -1.0 for prompt in prompts]


def reward(right="rewrite 3", **options):
    """A task model that answers right under one rewrite alone."""
    asked = ScriptedTaskModel(lambda prompt: "yes" if prompt.startswith(f"{right}\n") else "no")
    return TaskReward(Evaluator(asked, decoding="generate"), guards=(), **options)


def texts(choice):
    return [candidate.rewrite for candidate in choice.selection.candidates]


def test_the_initial_instruction_the_greedy_rewrite_samples_and_remembered_ones_compete_and_the_best_wins():
    remembered = [Candidate("from training", "rollout")]
    choice = choose_rewrite(INSTRUCTION, Writer(), reward(), ROWS, num_candidates=4, remembered=remembered)
    assert texts(choice) == [
        INSTRUCTION, "plain", "rewrite 0", "rewrite 1", "rewrite 2", "rewrite 3", "from training",
    ]  # fmt: skip
    assert choice.rewrite == "rewrite 3" and choice.refused == []


def test_what_guards_refuse_is_not_asked_and_its_row_says_why():
    choice = choose_rewrite(INSTRUCTION, Writer(), reward(fidelity=Fidelity(Judge())), ROWS, num_candidates=9)
    assert "rewrite 7" not in texts(choice) and len(texts(choice)) == 10
    (refused,) = choice.refused
    assert refused["rewrite"] == "rewrite 7" and refused["fidelity"] == 0.0 and "guard/fidelity" in refused["guards"]
    told = [row for row in choice.rows if row["event"] == "candidate"]
    assert [row["fidelity"] for row in told] == [1.0] * 10


def test_the_control_competes_with_as_many_candidates_on_the_same_rows():
    trained = choose_rewrite(INSTRUCTION, Writer(), reward(), ROWS, num_candidates=10, race=False, max_items=15)
    same = {"race": False, "max_items": 15, "num_competitors": len(texts(trained))}
    poor = choose_rewrite(INSTRUCTION, Writer(variety=3), reward(), ROWS, num_candidates=10, **same)
    assert texts(poor)[:6] == [INSTRUCTION, "plain", "rewrite 0", "rewrite 1", "rewrite 2", "rewrite 100"]
    rich = choose_rewrite(INSTRUCTION, Writer(), reward(), ROWS, num_candidates=30, **same)
    assert trained.selection.calls == poor.selection.calls == rich.selection.calls == 12 * 15
    assert list(poor.selection.raced) == list(trained.selection.raced)


def test_a_rewriter_that_has_no_more_to_say_is_not_asked_for_ever():
    choice = choose_rewrite(INSTRUCTION, Writer(variety=1), reward(), ROWS, num_candidates=2, num_competitors=50)
    assert len(texts(choice)) == 2 + 6  # one text from each of six draws


def test_the_same_seed_chooses_the_same_way():
    rows = [choose_rewrite(INSTRUCTION, Writer(), reward(), ROWS, seed=seed).rows for seed in (3, 3, 4)]
    assert rows[0] == rows[1] != rows[2]


@pytest.mark.parametrize("options", [{}, {"max_items": 16}, {"max_items": 16, "complete": True}])
@pytest.mark.parametrize("race", [True, False])
def test_the_most_calls_are_never_exceeded(options, race):
    grader = reward()
    asked = []
    answer = grader.evaluator.task_model.answer
    grader.evaluator.task_model.answer = lambda prompt: asked.append(prompt) or answer(prompt)
    choose_rewrite(INSTRUCTION, Writer(), grader, ROWS, num_candidates=8, race=race, practical_delta=0, **options)
    assert 0 < len(asked) <= most_calls(10, len(ROWS), **options)
    assert race or len(asked) == 10 * min(20, options.get("max_items", 20)) + 8 * ("complete" in options)


def test_the_initial_instruction_is_never_refused():
    candidates = [Candidate("Sort 7 letters.", "initial"), Candidate("Write 7 poems.", "sample")]
    kept, refused = split_by_guards(candidates, reward(fidelity=Fidelity(Judge())), INSTRUCTION, ROWS)
    assert [candidate.source for candidate in kept] == ["initial"]
    assert [row["rewrite"] for row in refused] == ["Write 7 poems."]


def test_a_rewrite_that_breaks_a_rule_of_the_user_is_refused():
    rules = Constraints(forbid=("rewrite",))
    choice = choose_rewrite(INSTRUCTION, Writer(), reward(constraints=rules), ROWS, num_candidates=4)
    assert texts(choice) == [INSTRUCTION, "plain"]
    assert [row["guards"].keys() for row in choice.refused] == [{"guard/forbid"}] * 4
