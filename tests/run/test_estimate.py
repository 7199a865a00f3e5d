"""What a run says that it asks at most, it never exceeds."""

import json
import re

import pytest

from prewrite.cli.main import main
from prewrite.data import PRewriteDataset, Splits
from prewrite.run.build import open_instructions
from prewrite.run.config import TrainConfig
from prewrite.run.estimate import estimate_line, phases
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.rewards import TaskReward
from prewrite.task_models.scripted import ScriptedTaskModel
from prewrite.types import RewriteExample
from toy_cli import whole_flags


def rows(count, name, **more):
    return PRewriteDataset.from_examples(
        [RewriteExample("Sort.", f"{name} {number}", "yes", task="qa", **more) for number in range(count)]
    )


SPLITS = [Splits(rows(50, "train"), rows(40, "dev"), rows(30, "test"), seed=0, dropped={})]
PLAIN = {
    "parts": ["instruction"],
    "max_steps": 10,
    "rewrites_per_step": 8,
    "examples_per_rewrite": 4,
    "eval_steps": 4,
    "dev_examples": 25,
}
# 10 updates of 8 rewrites on 4 examples; dev before the first, after the 4th, the 8th and the last; two texts on test
COUNTS = {"training": 320, "dev": 100, "test": 60}


@pytest.mark.parametrize(
    ("settings", "counts"),
    [
        ({}, COUNTS),
        ({"reward_mode": "perplexity"}, COUNTS | {"training": 640}),  # the answer, and the gold answer's score
        ({"reward_mode": "soft"}, COUNTS | {"training": 360}),  # the initial instruction is scored too
        ({"algorithm": "grpo"}, COUNTS | {"training": 640}),  # all groups tie and are graded again
        ({"algorithm": "rloo", "resample_ties": False}, COUNTS),
        ({"eval_steps": 5}, COUNTS | {"dev": 75}),
        ({"strategy": "S", "num_candidates": 3}, COUNTS | {"choice": 320}),  # 2 + 3 + 3 candidates on 40 rows
        ({"strategy": "S", "num_candidates": 3, "race_items": 10}, COUNTS | {"choice": 80}),
        (
            {"strategy": "S", "num_candidates": 3, "baselines": True},
            COUNTS | {"choice": 320, "control": 320, "test": 210},  # five baselines on test
        ),
        ({"test_examples": 10}, COUNTS | {"test": 20}),
        # the search, and on test the prompt, its parts and the greedy rewrite
        ({"parts": ["exemplars"], "search_calls": 300}, COUNTS | {"choice": 300, "test": 240}),
        ({"parts": ["offsets"], "baselines": True}, COUNTS | {"choice": 1200, "control": 1200, "test": 360}),
        ({"examples_per_rewrite": 90}, COUNTS | {"training": 4000}),  # there are 50 rows
    ],
)
def test_each_phase_says_its_most_calls(settings, counts):
    config = TrainConfig(**PLAIN | settings)
    reward = TaskReward(Evaluator(ScriptedTaskModel(str.upper)), mode=config.reward_mode)
    instructions = open_instructions(config, SPLITS)
    found = phases(config, SPLITS, instructions, reward)
    assert {phase.name: phase.calls for phase in found} == counts
    total = f"at most {sum(counts.values()):,} task-model calls"
    assert estimate_line(config, SPLITS, instructions, reward).startswith(total)


UNGUARDED = ("--guards", "none", "--min_fidelity", "0")
"""Training asks nothing about rewrites that guards refuse, most of the toy's; an estimate counts all."""


@pytest.mark.parametrize(
    "flags",
    [
        ["--reward_mode", "perplexity", "--parts", "instruction"],
        ["--strategy", "S", "--search_calls", "200", "--baselines", *UNGUARDED],
        ["--parts", "instruction", "--strategy", "S", "--num_candidates", "4", "--baselines", *UNGUARDED],
        [
            "--parts",
            "instruction",
            "--algorithm",
            "grpo",
            "--max_steps",
            "5",
            "--eval_steps",
            "2",
            "--kl_coef",
            "0",
            *UNGUARDED,
        ],
    ],
)
def test_a_run_asks_no_more_than_it_said(toy, tmp_path, capsys, flags):
    assert main(whole_flags(toy, tmp_path / "run", *flags)) == 0
    told = int(re.search(r"Estimate: at most ([\d,]+)", capsys.readouterr().err)[1].replace(",", ""))
    asked = json.loads((tmp_path / "run" / "result.json").read_text())["cost"]["task_model"]["prompts"]
    assert told / 3 < asked <= told
