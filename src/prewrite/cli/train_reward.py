"""`prewrite train-reward`: a reward model from the scored rollouts of training runs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from prewrite.cli.requirements import require_training
from prewrite.errors import ConfigError, RunFolderError
from prewrite.run_folder import RunFolder
from prewrite.scoring.rewards import REWARD_MODEL_FILE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Runs, place, length."""
    parser.epilog = "Example: prewrite train-reward --run runs/first --output-dir runs/first/reward_model"
    parser.add_argument("--run", dest="runs", action="append", required=True, metavar="RUN",
                        help="run folder with rollouts; repeat it to learn from several")  # fmt: skip
    parser.add_argument("--output_dir", "--output-dir", help="the reward model's folder (default: RUN/reward_model)")
    parser.add_argument("--overwrite", action="store_true", help="replace the reward model in output_dir")
    parser.add_argument("--base_model", "--base-model", default="embedded", help="folder, hub id or embedded")
    parser.add_argument("--epochs", type=int, default=2, help="passes over the pairs (default: 2)")
    parser.add_argument("--pairs_per_update", "--pairs-per-update", type=int, default=16,
                        help="most pairs of rewrites from one update and instruction (default: 16)")  # fmt: skip
    parser.add_argument("--learning_rate", "--learning-rate", type=float, default=2e-4, help="default: 2e-4")
    parser.add_argument("--seed", type=int, default=0, help="seed of pairs, order and initial weights")


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Train, save, and say how far to trust it."""
    require_training()
    for name in ("epochs", "pairs_per_update", "learning_rate"):
        if getattr(namespace, name) <= 0:
            raise ConfigError(f"{name} is {getattr(namespace, name)}; it must be above 0")
    for folder in namespace.runs:
        RunFolder.open(folder)  # before the imports, which take seconds
    output = Path(namespace.output_dir or Path(namespace.runs[0]) / "reward_model")
    if output.exists():
        if not (output / REWARD_MODEL_FILE).is_file():
            raise RunFolderError(f"output_dir {str(output)!r} exists and is no reward model; choose another folder")
        if not namespace.overwrite:
            raise RunFolderError(f"output_dir {str(output)!r} holds a reward model; pass --overwrite to replace it")
    from prewrite.train.reward_model import train_reward_model

    learned = train_reward_model(
        namespace.runs,
        base_model=namespace.base_model,
        epochs=namespace.epochs,
        pairs_per_update=namespace.pairs_per_update,
        learning_rate=namespace.learning_rate,
        seed=namespace.seed,
    )
    learned.save(output)
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
