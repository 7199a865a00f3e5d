"""`prewrite train`, and `finetune.py`, which is the same."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from prewrite.cli.options import add_data_by_position, add_options, build_config
from prewrite.cli.requirements import require_training
from prewrite.cli.results import print_prompt, print_rewrite
from prewrite.cli.screen import say_where_data_go
from prewrite.errors import ConfigError, RunFolderError
from prewrite.run.config import TrainConfig
from prewrite.run.option import options_of
from prewrite.run_folder import RunFolder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All settings of `TrainConfig`."""
    parser.epilog = (
        "Example: prewrite train --data train.jsonl --task-model embedded --strategy S --output-dir runs/first\n"
        "prewrite train --resume runs/first goes on with a run as its config.json says; flags win over that.\n"
        "--help-all shows the other settings."
    )
    add_data_by_position(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_options(parser, TrainConfig)


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Train, choose, test, report."""
    config = build_config(TrainConfig, namespace, **settings_of_run(namespace))
    return train_and_print(config, argv, as_json=namespace.json)


def settings_of_run(namespace: argparse.Namespace) -> dict[str, Any]:
    """The settings of the run that `--resume RUN` names, RUN standing where data may; none without one.

    Raises `RunFolderError` where RUN is no run.
    """
    if not getattr(namespace, "resume", False) or not namespace.data_by_position:
        return {}
    if len(namespace.data_by_position) > 1:
        raise ConfigError(f"--resume takes one run folder, not {' '.join(namespace.data_by_position)}")
    (folder,) = namespace.data_by_position
    namespace.data_by_position = []
    run = RunFolder.open(folder)
    settings: dict[str, Any] = RunFolder.read_json(run.config, {"config": dict})["config"]
    if unknown := sorted(settings.keys() - {option.name for option in options_of(TrainConfig)}):
        raise RunFolderError(
            f"{run.config}: {unknown[0]!r} is no setting of a training run; the file was changed, or is that of a "
            "search or of another version; give the settings on the command line"
        )
    return settings | {"output_dir": folder, "overwrite": False}


def train_and_print(config: TrainConfig, argv: Sequence[str], *, as_json: bool = False) -> int:
    """Run the training and say what came of it; the exit code."""
    say_where_data_go(config.task_model)
    require_training()
    from prewrite.run.train import run_training

    result = run_training(config, argv)
    if not result:  # another process measures and prints
        return 0
    if "stopped_at" in result:
        stopped = f"Stopped after update {result['stopped_at']}."
        print(json.dumps(result) if as_json else f"{stopped} Go on with: prewrite train --resume {config.output_dir}")
        return 130
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
        return 0
    for task in result.get("tasks", [result]):
        print_rewrite(task) if config.wording_alone else print_prompt(task)
    print(f"\nReport: {config.output_dir}/report.html   Rewriter: {config.output_dir}/rewriter")
    print(f"Ask with the prompt: prewrite ask --prompt {config.output_dir} INPUT")
    return 0
