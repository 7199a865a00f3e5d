"""`prewrite train-reward`: a reward model from the scored rollouts of training runs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from prewrite.cli.options import add_options, build_config
from prewrite.cli.requirements import require_training
from prewrite.errors import RunFolderError
from prewrite.run.checks import check_model
from prewrite.run.config import RewardModelConfig
from prewrite.run_folder import RunFolder
from prewrite.scoring.rewards import REWARD_MODEL_FILE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All settings of `RewardModelConfig`."""
    parser.epilog = "Example: prewrite train-reward --run runs/first --output-dir runs/first/reward_model"
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_options(parser, RewardModelConfig)


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Train, save, and say how far to trust it."""
    config = build_config(RewardModelConfig, namespace)
    require_training()
    for folder in config.runs:
        RunFolder.open(folder)  # before the imports, which take seconds
    output = Path(config.output_dir or Path(config.runs[0]) / "reward_model")
    if output.exists():
        if not (output / REWARD_MODEL_FILE).is_file():
            raise RunFolderError(f"output_dir {str(output)!r} exists and is no reward model; choose another folder")
        if not config.overwrite:
            raise RunFolderError(f"output_dir {str(output)!r} holds a reward model; pass --overwrite to replace it")
    check_model("base_model", config.base_model)
    from prewrite.train.reward_model import train_reward_model

    learned = train_reward_model(
        config.runs,
        base_model=config.base_model,
        epochs=config.epochs,
        pairs_per_update=config.pairs_per_update,
        learning_rate=config.learning_rate,
        seed=config.seed,
    )
    learned.save(output)
    if namespace.json:
        print(json.dumps({"reward_model": str(output), "held_out": dict(learned.settings.held_out)}))
        return 0
    print_figures(learned.settings.held_out)
    print(f"Reward model: {output}")
    print(f"Use it with: prewrite train --reward_mode model --reward_model {output} ...")
    return 0


def print_figures(found: Mapping[str, float]) -> None:
    """How the reward model did on the updates that it did not learn from."""
    print(f"Trained on {found['train_pairs']} pairs of rewrites.")
    print(
        f"Held out: the last {found['updates']} updates, {found['rewrites']} rewrites, "
        f"{found['new']:.0%} of them in no earlier update. Within an update:"
    )
    print(f"  pairs in the right order  {found['pairwise_accuracy']:.1%} of {found['pairs']}")
    print(f"  correlation               Pearson {found['pearson']:.2f}, Spearman {found['spearman']:.2f}")
    print(f"  mean error                {found['error']:.3f}, of guessing the mean {found['error_of_mean']:.3f}")
