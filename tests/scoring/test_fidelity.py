"""Fidelity: its scale, its ends, and how rewards, refusals and rows use it."""

import json

import pytest

from prewrite.errors import ConfigError
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.fidelity import PROMPT, Fidelity
from prewrite.scoring.rewards import TaskReward
from prewrite.task_models.scripted import ScriptedTaskModel
from prewrite.train.records import rollout_rows, summarise
from prewrite.types import RewriteExample

INSTRUCTION = "Say whether the mail is spam or ham."
ROWS = [RewriteExample(INSTRUCTION, "buy now", "spam", "classification", choices=("spam", "ham"))]


class WordJudge:
    """Finds the instruction the likelier, the more of its words the prompt holds."""

    def __init__(self):
        self.asked = []

    def target_logprobs(self, prompts, targets):
        self.asked += prompts
        wanted = set(INSTRUCTION.lower().strip(".").split())
        before, after = PROMPT.split("{text}")
        texts = [prompt.removeprefix(before).removesuffix(after) for prompt in prompts]
        assert all(target == f" {INSTRUCTION}" for target in targets)
        return [len(wanted & set(text.lower().strip(".").split())) / len(wanted) - 4.0 for text in texts]


def test_the_instruction_itself_is_1_and_a_text_that_tells_nothing_is_0():
    fidelity = Fidelity(WordJudge())
    whole, half, none, empty = fidelity(
        [INSTRUCTION, "spam or ham: is the mail junk", "Write a poem.", "  "], INSTRUCTION
    )
    assert whole == 1.0 and none == 0.0 and empty == 0.0
    assert 0.3 < half < 1.0


def test_each_text_is_judged_once():
    judge = WordJudge()
    fidelity = Fidelity(judge)
    fidelity(["a mail", "a mail"], INSTRUCTION)
    fidelity(["a mail"], INSTRUCTION)
    assert len(judge.asked) == len(set(judge.asked)) == 3  # the text, the instruction, nothing


def test_what_the_judge_has_said_holds_after_a_resume_in_other_company():
    """In bf16 a text's score depends on what else is in the batch."""

    class Moody(WordJudge):
        def target_logprobs(self, prompts, targets):
            return [score + len(prompts) / 1000 for score in super().target_logprobs(prompts, targets)]

    straight = Fidelity(Moody())
    straight(["a mail", "spam", "ham"], INSTRUCTION)
    resumed, forgetful = Fidelity(Moody()), Fidelity(Moody())
    resumed.restore(json.loads(json.dumps(straight.state())))
    wanted = straight(["is the mail spam", "a mail"], INSTRUCTION)
    assert resumed(["is the mail spam", "a mail"], INSTRUCTION) == wanted
    assert forgetful(["is the mail spam", "a mail"], INSTRUCTION) != wanted


def test_a_judge_that_cannot_tell_the_instruction_from_nothing_refuses_nobody():
    class Flat:
        def target_logprobs(self, prompts, targets):
            return [-2.0] * len(prompts)

    assert Fidelity(Flat())(["anything", ""], INSTRUCTION) == [1.0, 0.0]


def reward(**options):
    evaluator = Evaluator(ScriptedTaskModel(lambda prompt: "spam"), decoding="generate")
    return TaskReward(evaluator, guards=(), fidelity=Fidelity(WordJudge()), **options)


def test_below_the_floor_the_penalty_grows_with_what_is_lost():
    graded = reward(min_fidelity=0.5, guard_weight=0.4)([INSTRUCTION, "Write a poem.", "the mail"], INSTRUCTION, ROWS)
    whole, poem, some = graded
    assert "guard/fidelity" not in whole.reward.parts and whole.reward.total == 1.0 and whole.fidelity == 1.0
    assert poem.reward.parts["guard/fidelity"] == pytest.approx(-0.4) and poem.fidelity == 0.0
    lost = 1 - some.fidelity / 0.5
    assert some.reward.total == pytest.approx(1 - 0.4 * lost) and 0 < lost < 1


def test_floor_0_measures_and_never_punishes():
    graded = reward(min_fidelity=0.0)(["Write a poem."], INSTRUCTION, ROWS)[0]
    assert graded.reward.parts == {"task": 1.0} and graded.fidelity == 0.0


def test_the_floor_is_a_share():
    with pytest.raises(ConfigError, match=r"min_fidelity is 1\.5"):
        reward(min_fidelity=1.5)


def test_rollouts_and_metrics_hold_the_fidelity():
    graded = reward()([INSTRUCTION, "Write a poem."], INSTRUCTION, ROWS)
    texts = [INSTRUCTION, "Write a poem."]
    rows = rollout_rows(1, [INSTRUCTION] * 2, texts, texts, graded, [0.0, 0.0])
    assert [row["fidelity"] for row in rows] == [1.0, 0.0]
    assert summarise(rows)["fidelity/mean"] == 0.5
