"""What a run may ask the task model at most, phase by phase, for the user to read before it starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from prewrite.choosing.choose import most_calls
from prewrite.data import Splits
from prewrite.run.build import InstructionRows, open_price
from prewrite.run.config import TrainConfig
from prewrite.run.measure import BASELINES
from prewrite.run.search import MOST_STEPS
from prewrite.scoring.rewards import TaskReward
from prewrite.task_models.budget import estimate
from prewrite.task_models.stream import unwrapping
from prewrite.train import processes
from prewrite.train.algorithms import ALGORITHMS


class Phase(NamedTuple):
    """A part of a run."""

    name: str
    calls: int
    """The most questions that it asks the task model; attempts that failed and are made again are not counted."""


def phases(
    config: TrainConfig, splits: Sequence[Splits], instructions: Sequence[InstructionRows], reward: TaskReward
) -> list[Phase]:
    """The parts of the run that ask the task model, in order."""
    complete = not config.hold_out_test
    candidates = 2 + 2 * config.num_candidates  # the initial and the greedy one, samples, remembered ones
    if config.wording_alone:
        choices = sum(
            most_calls(candidates, len(rows.dev), max_items=config.race_items or None, complete=complete)
            for rows in instructions
        )
        prompts, beside = 2, len(BASELINES)
    else:
        choices = len(instructions) * config.search_calls
        prompts, beside = MOST_STEPS + 1, len(BASELINES) - 1  # the trained greedy rewrite is tested anyway
    chooses = config.strategy == "S" or not config.wording_alone
    tested = sum(len(rows.test) for rows in instructions if rows.test is not None)
    found = [
        Phase("training", training_calls(config, splits, reward)),
        Phase("dev", (1 + math.ceil(config.max_steps / config.eval_steps)) * dev_rows(config, splits)),
        Phase("choice", choices if chooses else 0),
        Phase("control", choices if config.baselines else 0),
        Phase("test", (prompts + (beside if config.baselines else 0)) * tested),
    ]
    return [phase for phase in found if phase.calls]


def training_calls(config: TrainConfig, splits: Sequence[Splits], reward: TaskReward) -> int:
    """Every update grades its rewrites, of which those that all tie may be graded again on other examples."""
    by_instruction = [rows for part in splits for rows in part.train.by_instruction().values()]
    groups = min(config.instructions_per_step, len(by_instruction)) * processes.count()
    examples = min(config.examples_per_rewrite, max(map(len, by_instruction)))
    decodings = {reward.evaluator.decoding_of(rows[0]) for rows in by_instruction}
    grading = max(
        reward.most_calls(decoding, config.rewrites_per_step, examples, groups=groups) for decoding in decodings
    )
    again = "resample_ties" in ALGORITHMS[config.algorithm].own_settings and config.resample_ties
    updates = sum(reward.asks_task_model(step) for step in range(1, config.max_steps + 1))
    return updates * grading * (2 if again else 1)


def dev_rows(config: TrainConfig, splits: Sequence[Splits]) -> int:
    """Rows of one dev evaluation."""
    return min(config.dev_examples, sum(len(part.dev) for part in splits))


def estimate_line(
    config: TrainConfig, splits: Sequence[Splits], instructions: Sequence[InstructionRows], reward: TaskReward
) -> str:
    """The phases' sum and what it comes to in tokens and, with a price table, in dollars."""
    found, evaluator = phases(config, splits, instructions, reward), reward.evaluator
    examples = [part.train[index] for part in splits for index in range(min(20, len(part.train)))]
    prompts = [evaluator.prompt(example.instruction, example) for example in examples]
    writes = any(evaluator.decoding_of(example) != "likelihood" for example in examples)
    *_, backend = unwrapping(evaluator.task_model)
    line = estimate(
        prompts,
        sum(phase.calls for phase in found),
        output_tokens=getattr(backend, "max_new_tokens", 64) if writes else 0,
        price=open_price(config),
    )
    return f"{line} ({', '.join(f'{phase.name} {phase.calls:,}' for phase in found)})"
