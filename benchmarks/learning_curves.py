"""Do the fast path and the plain path learn the same? Mean reward per update, both paths, several seeds.

    python benchmarks/learning_curves.py                                       the toy, 5 seeds: a minute
    python benchmarks/learning_curves.py --recipe agnews --data FOLDER --output runs/curves --seeds 3

The fast path is the trainer as it is; the plain path has every lever of `ppo_levers.py` off, so that rollouts, losses
and gradients come from transformers, PEFT and autograd. Both draw the same examples and the same random numbers: while
rounding lets them, they sample the same tokens, and after the first token that differs they are two runs.

Printed: both curves, and over all updates the mean distance of the two paths under one seed beside the mean distance
of two seeds under one path, which is what seed noise alone does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from ppo_levers import LEVERS

ROOT = Path(__file__).resolve().parents[1]
PATHS = ("fast", "plain")


def toy_curve(seed: int) -> list[float]:
    """Mean reward of each update on the toy of examples/toy.py."""
    sys.path.insert(0, str(ROOT / "examples"))
    from toy import toy_trainer

    curve: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = toy_trainer(folder, seed=seed, progress=lambda step, metrics: curve.append(metrics["reward/mean"]))
        trainer.train()
    return curve


def recipe_curve(given: argparse.Namespace, path: str, seed: int) -> list[float]:
    """Mean reward of the first updates of a recipe's training; a finished run is not trained again."""
    from prewrite.cli.main import main as prewrite
    from prewrite.run_folder import RunFolder

    run = RunFolder(given.output / f"{given.recipe}-{path}-{seed}")  # only its training is looked at
    if not run.result.is_file():
        code = prewrite([
            "train", "--config", str(ROOT / "recipes" / f"{given.recipe}.yaml"), "--parts", "instruction",
            "--data", str(given.data / given.recipe), "--output-dir", str(run.path), "--seed", str(seed),
            "--max_steps", str(given.updates), "--eval_steps", str(given.updates), "--overwrite",
            "--strategy", "I", "--dev_examples", "8", "--test_examples", "8",
        ])  # fmt: skip
        if code:
            sys.exit(code)
    return [row["reward/mean"] for row in run.read_rows(run.metrics)][: given.updates]


def in_own_process(given: argparse.Namespace, path: str, seed: int) -> list[float]:
    """One curve; the plain path patches modules, so it gets a process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--only", path, "--seed", str(seed)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def main() -> None:
    """Train what is missing and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", help="a recipe in recipes/ in place of the toy; its data set has the same name")
    parser.add_argument("--data", type=Path, help="folder of data sets, for --recipe")
    parser.add_argument("--output", type=Path, help="folder of the runs, for --recipe")
    parser.add_argument("--updates", type=int, default=6, help="updates of each run, for --recipe")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--only", choices=PATHS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.recipe and not (given.data and given.output):
        parser.error("--recipe needs --data and --output")
    if given.seeds < 2:
        parser.error("--seeds must be at least 2: the noise of seeds is what the paths are held against")
    if given.only:
        if given.only == "plain":
            for switch_off in LEVERS.values():
                switch_off()
        print(json.dumps(recipe_curve(given, given.only, given.seed) if given.recipe else toy_curve(given.seed)))
        return
    curves = {path: np.array([in_own_process(given, path, seed) for seed in range(given.seeds)]) for path in PATHS}
    print("| update | " + " | ".join(f"{path}, mean of {given.seeds} seeds (sd)" for path in PATHS) + " |")
    print("|---:|---|---|")
    for at in range(curves["fast"].shape[1]):
        cells = [f"{curves[path][:, at].mean():.3f} ({curves[path][:, at].std(ddof=1):.3f})" for path in PATHS]
        print(f"| {at + 1} | {' | '.join(cells)} |")
    across_paths = np.abs(curves["fast"] - curves["plain"]).mean()
    pairs = list(itertools.combinations(range(given.seeds), 2))
    across_seeds = np.mean([np.abs(curves[p][a] - curves[p][b]).mean() for p in PATHS for a, b in pairs])
    print(f"\nMean distance: {across_paths:.4f} between the paths under one seed, {across_seeds:.4f} between seeds.")


if __name__ == "__main__":
    main()
