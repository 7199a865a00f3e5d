"""`prewrite demo`: the whole product on the built-in data with the embedded model, offline, in minutes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from prewrite.cli.options import add_options, build_config
from prewrite.cli.train import train_and_print
from prewrite.run.config import TrainConfig

DEMO: dict[str, Any] = {
    "dataset": ["demo"],
    "output_dir": "runs/demo",
    "reward_mode": "soft",
    "max_steps": 9,
    "rewrites_per_step": 16,
    "examples_per_rewrite": 8,
    "response_length": 40,
    "learning_rate": 4e-4,
    "eval_steps": 3,
    "dev_examples": 60,
    "num_candidates": 6,
    "search_calls": 1000,
    "strategy": "S",
    "overwrite": True,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The settings that the demo lets you change; all others are `DEMO`."""
    changeable = ["output_dir", "max_steps", "seed", "strategy", "report_to"]
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_options(parser, TrainConfig, only=changeable, defaults=DEMO)


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Train on the demo data and print before and after."""
    config = build_config(TrainConfig, namespace, **DEMO)
    if namespace.json:
        return train_and_print(config, argv, as_json=True)
    print("A 135M model learns to rewrite one weak instruction so that the same model, frozen, does the task better.")
    print(
        "Then wordings, worked examples, answer lines and label offsets compete; untouched rows say what each brings."
    )
    return train_and_print(config, argv)
