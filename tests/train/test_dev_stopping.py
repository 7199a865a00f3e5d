"""Dev stopping judges a rewrite as the reward does."""

import json

import pytest

from prewrite.data import PRewriteDataset
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.rewards import TaskReward
from prewrite.task_models.scripted import ScriptedTaskModel
from prewrite.train.dev_stopping import DevStopping
from prewrite.types import RewriteExample

INSTRUCTION = "Say whether the review is positive or negative."
BABBLE = "no no no no no no no no no no no no no no no no no no no no"  # each default guard finds something


def dev_stopping(reward):
    rows = [RewriteExample(INSTRUCTION, f"review {n}", "positive", choices=("positive", "negative")) for n in range(4)]
    return DevStopping(PRewriteDataset.from_examples(rows), reward, every=1, patience=2, limit=4, seed=0)


def test_all_penalties_together_count_on_dev_as_in_the_reward():
    reward = TaskReward(Evaluator(ScriptedTaskModel(lambda prompt: "positive")), guard_weight=0.5)
    dev = dev_stopping(reward)
    result = dev.evaluate(0, lambda instruction: BABBLE)
    ((graded,), penalties) = reward([BABBLE], INSTRUCTION, dev.rows[INSTRUCTION]), result.rows[0]["guards"]
    assert sum(penalties.values()) < -1.0  # more than two full ones
    assert result.score == 1.0
    assert dev.best == graded.reward.total == 0.0  # 1 - 2 x 0.5


def test_the_policy_kept_is_the_best_readable_one():
    reward = TaskReward(Evaluator(ScriptedTaskModel(lambda prompt: "positive")), guard_weight=0.5)
    dev = dev_stopping(reward)
    assert dev.evaluate(0, lambda instruction: BABBLE).is_best  # the first always is
    assert dev.evaluate(1, lambda instruction: "Is the review positive or negative?").is_best
    assert not dev.evaluate(2, lambda instruction: BABBLE).is_best
    assert (dev.best_step, dev.since_best, dev.exhausted) == (1, 1, False)
    assert not dev.evaluate(3, lambda instruction: "Is the review positive or negative?").is_best
    assert dev.exhausted


@pytest.mark.parametrize(("step", "due"), [(0, True), (1, False), (2, True), (3, False)])
def test_dev_is_scored_every_so_many_updates(step, due):
    dev = dev_stopping(TaskReward(Evaluator(ScriptedTaskModel(lambda prompt: "positive")), guards=()))
    dev.every = 2
    assert dev.due(step) is due
    assert dev.due(3, last=True)


def test_what_was_scored_before_a_resume_is_not_asked_again():
    asked = []

    def answer(prompt):
        asked.append(prompt)
        return "positive"

    first = dev_stopping(TaskReward(Evaluator(ScriptedTaskModel(answer)), guards=()))
    first.evaluate(0, lambda instruction: "Judge the review.")
    first.best_state = {}
    second = dev_stopping(TaskReward(Evaluator(ScriptedTaskModel(answer)), guards=()))
    second.restore(json.loads(json.dumps(first.state())))
    count = len(asked)
    assert not second.evaluate(1, lambda instruction: "Judge the review.").is_best
    assert len(asked) == count and second.best == first.best and second.since_best == 1
