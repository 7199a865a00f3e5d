"""What a run will ask the task model, for the user to read before it starts."""

from __future__ import annotations

from collections.abc import Sequence

from prewrite.data import Splits
from prewrite.run.build import open_price
from prewrite.run.config import TrainConfig
from prewrite.scoring.evaluator import Evaluator
from prewrite.task_models.budget import estimate


def estimate_line(config: TrainConfig, splits: Sequence[Splits], evaluator: Evaluator) -> str:
    """What the run will ask the task model at most: training, dev evaluations, choice and test."""
    dev_rows = sum(min(len(part.dev), config.dev_examples) for part in splits)
    graded_steps = config.max_steps // (config.real_every if config.reward_mode == "model" else 1)
    writes = any(evaluator.decoding_of(part.train[0]) != "likelihood" for part in splits)
    compared = config.instructions_per_step if config.reward_mode == "soft" and writes else 0  # with the rewrites
    calls = graded_steps * (config.rewrites_per_step + compared) * config.examples_per_rewrite
    calls += (config.max_steps // config.eval_steps + 1) * dev_rows
    if config.strategy == "S":
        rows = sum(min(len(part.dev), config.race_items or len(part.dev)) for part in splits)
        calls += (2 + 2 * config.num_candidates) * rows
    calls += 2 * sum(min(len(part.test), config.test_examples or len(part.test)) for part in splits)
    examples = [part.train[index] for part in splits for index in range(min(20, len(part.train)))]
    prompts = [evaluator.prompt(example.instruction, example) for example in examples]
    return estimate(prompts, calls, output_tokens=64 if writes else 0, price=open_price(config))
