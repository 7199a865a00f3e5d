"""`prewrite train`, and `finetune.py`, which is the same."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from prewrite.cli.options import add_options, build_config
from prewrite.cli.requirements import require_training
from prewrite.cli.results import print_prompt, print_rewrite
from prewrite.cli.screen import say_where_data_go
from prewrite.run.config import TrainConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All settings of `TrainConfig`."""
    parser.epilog = (
        "Example: prewrite train --data train.jsonl --task-model embedded --strategy S --output-dir runs/first\n"
        "--help-all shows the other settings."
    )
    add_options(parser, TrainConfig)


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Train, choose, test, report."""
    config = build_config(TrainConfig, namespace)
    return train_and_print(config, argv)


def train_and_print(config: TrainConfig, argv: Sequence[str]) -> int:
    """Run the training and say what came of it; the exit code."""
    say_where_data_go(config.task_model)
    require_training()
    from prewrite.run.train import run_training

    result = run_training(config, argv)
    if not result:  # another process measures and prints
        return 0
    if "stopped_at" in result:
        print(f"Stopped after update {result['stopped_at']}. Go on with the same command and --resume.")
        return 130
    for task in result.get("tasks", [result]):
        print_rewrite(task) if config.wording_alone else print_prompt(task)
    print(f"\nReport: {config.output_dir}/report.html   Rewriter: {config.output_dir}/rewriter")
    print(f"Ask with the prompt: prewrite ask --prompt {config.output_dir} INPUT")
    return 0
