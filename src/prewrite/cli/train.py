"""`prewrite train`, and `finetune.py`, which is the same."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from prewrite.cli.options import add_options, build_config
from prewrite.cli.requirements import require_training
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
        print_result(task)
    print(f"\nReport: {config.output_dir}/report.html   Rewriter: {config.output_dir}/rewriter")
    return 0


def print_result(result: dict[str, Any]) -> None:
    """Before and after, in lines that a person reads."""
    from prewrite.choosing.evaluation import calibrated_note, points

    print(f"\nInitial instruction: {result['instruction']}")
    print(f"Rewrite:             {result['rewrite']}")
    fidelity = result["fidelity"]["rewrite"]
    if fidelity is not None:
        print(f"Fidelity:            {fidelity:.2f} of what the instruction tells")
    if (test := result["test"]) is not None:
        width = max(len(name) for name in test["instructions"])
        print(f"\nTest, {test['n']} rows, {result['metric']}, answers read by {result['decoding']}:")
        for name, row in test["instructions"].items():
            low, high = row["interval"]["low"], row["interval"]["high"]
            print(f"  {name:<{width}}  {row['mean']:.3f}  (95% interval {low:.3f} to {high:.3f})")
    print(result["verdict"])
    if test is None:
        return
    for name, gain in test["gains_over"].items():
        claim = "" if gain["significant"] else "no significant gain: "
        print(
            f"Over {name}: {claim}{points(gain['mean'])} points, 95% interval {points(gain['low'])} to "
            f"{points(gain['high'])}"
        )
    if note := calibrated_note(test, "rewrite"):
        print(note)
