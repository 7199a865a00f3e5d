"""Studies over conditions, data sets and seeds: what keeps rewrites readable, which algorithm does best, and what
more updates bring.

    python benchmarks/study.py readability --data FOLDER_OF_DATA_SETS --output runs/study
    python benchmarks/study.py algorithms --data FOLDER_OF_DATA_SETS --output runs/study
    python benchmarks/study.py longer --data FOLDER_OF_DATA_SETS --output runs/study

Every cell is an ordinary run of `prewrite train` with a recipe and the condition's settings, in a folder of its own
under `--output`; finished ones are not run again, so a study can be stopped and continued, and studies share cells.
All share the cache of answers: those of the initial instruction, the same in every cell, are asked for once. The table
counts prompts, cached or not. `--table` only prints what is there; `--calibrated` adds what remains of the gains
after batch calibration, from cached answers. A cell's rewrite is chosen on dev rows, and measured on test rows.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from prewrite.choosing.evaluate import evaluate
from prewrite.choosing.evaluation import Evaluation
from prewrite.choosing.stats import paired_bootstrap
from prewrite.run.build import open_evaluator, open_instructions, open_splits
from prewrite.run.config import TrainConfig
from prewrite.run_folder import RunFolder
from prewrite.scoring.guards import DEFAULT_GUARDS, GuardContext, check_guards

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
DATA = ("agnews", "sst2", "subj", "demo")
BARE = ["--warm_start", "none", "--guards", "none", "--min_fidelity", "0"]
CONTROL = "no learning"
# As many samples, calls and candidates, from a rewriter that stays as it is: what choosing alone brings.
NO_LEARNING = ["--learning_rate", "1e-12", "--num_ppo_epochs", "1"]
LONGER = ["--max_steps", "48", "--eval_steps", "8"]
STUDIES = {
    "readability": {
        "no guard": [*BARE, "--kl_coef", "0"],
        "KL only": BARE,
        "warm start": ["--guards", "none", "--min_fidelity", "0"],
        "warm start + guards": [],
    },
    "algorithms": {
        "PPO": [],
        "GRPO": ["--algorithm", "grpo"],
        "RLOO": ["--algorithm", "rloo"],
        CONTROL: NO_LEARNING,
    },
    "longer": {  # four times the recipes' updates
        "PPO": LONGER,
        CONTROL: [*LONGER, *NO_LEARNING],
    },
}


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--datasets", default=",".join(DATA), help="by commas; demo is the built-in one")
    parser.add_argument("--conditions", help="by commas; all of the study by default")
    parser.add_argument("--seeds", default="0,1,2", help="by commas")
    parser.add_argument("--table", action="store_true", help="print the table of finished runs, run nothing")
    parser.add_argument("--calibrated", action="store_true", help="print the gains after batch calibration too")
    given = parser.parse_args()
    conditions = STUDIES[given.study]
    wanted = given.conditions.split(",") if given.conditions else list(conditions)
    if unknown := [name for name in wanted if name not in conditions]:
        sys.exit(f"error: condition {unknown[0]!r} is unknown; choose from {', '.join(conditions)}")
    cells = [
        (data, name, int(seed))
        for seed in given.seeds.split(",")
        for data in given.datasets.split(",")
        for name in wanted
    ]
    if not given.table:
        for data, name, seed in cells:
            run_cell(given, data, conditions[name], seed)
    print_rows(given, cells, conditions)
    print_means(given, cells, conditions)
    if CONTROL in conditions:
        print_learning(given, cells, conditions)
    if given.calibrated:
        print_calibrated(given, cells, conditions)


def folder_of(given: argparse.Namespace, data: str, settings: list[str], seed: int) -> Path:
    """Where a cell lives: named by its settings, so that the same cell of two studies is one run."""
    name = "-".join(word.lstrip("-").replace("_", "") for word in settings) or "recipe"
    return Path(given.output) / f"{data}-{name}-{seed}"


def run_cell(given: argparse.Namespace, data: str, settings: list[str], seed: int) -> None:
    """Train and measure one cell, unless that is done; a run that was cut off goes on."""
    folder = folder_of(given, data, settings, seed)
    if (folder / "result.json").is_file():
        return
    source = "demo" if data == "demo" else str(given.data / data)
    command = [
        sys.executable, "-m", "prewrite.cli.main", "train", "--config", str(RECIPES / f"{data}.yaml"),
        "--parts", "instruction", "--race-items", "80" if data == "demo" else "100", "--data", source,
        "--output-dir", str(folder), "--seed", str(seed), *settings,
    ]  # fmt: skip
    command.append("--resume" if any(folder.glob("checkpoints/step-*")) else "--overwrite")
    print(" ".join(command[3:]), file=sys.stderr)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def finished(given: argparse.Namespace, cells, conditions) -> list[tuple[str, str, int, RunFolder, dict[str, Any]]]:
    """Cells that have a result."""
    found = []
    for data, name, seed in cells:
        run = RunFolder(folder_of(given, data, conditions[name], seed))
        if run.result.is_file():
            found.append((data, name, seed, run, RunFolder.read_json(run.result)))
    return found


def violations(result: dict[str, Any]) -> dict[str, float]:
    """Every default guard on the final rewrite, those that the run had switched off too; labels were scored."""
    labels = tuple(row["label"] for row in result["test"]["instructions"]["initial"]["labels"])
    context = GuardContext(result["instruction"], choices=labels)
    names = [name for name in DEFAULT_GUARDS if name != "keep_words" or result["decoding"] != "likelihood"]
    return check_guards(result["rewrite"], context, names)


def print_rows(given: argparse.Namespace, cells, conditions) -> None:
    """One line per run, with the rewrite."""
    print("| data | condition | seed | initial | rewrite | gain, 95% interval | fidelity | guards | the rewrite |")
    print("| --- | --- | ---: | ---: | ---: | --- | ---: | --- | --- |")
    for data, name, seed, _, result in finished(given, cells, conditions):
        test, gain = result["test"], result["test"]["differences"]["rewrite"]
        means = [test["instructions"][who]["mean"] for who in ("initial", "rewrite")]
        fired = ", ".join(f"{guard} {amount:.2f}" for guard, amount in violations(result).items()) or "silent"
        text = " ".join(result["rewrite"].split()).replace("|", "\\|")
        points = f"{100 * gain['mean']:+.1f} ({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f})"
        shown = [f"{means[0]:.3f}", f"{means[1]:.3f}", points, f"{result['fidelity']['rewrite']:.2f}", fired, text]
        print(f"| {data} | {name} | {seed} | {' | '.join(shown)} |")


def print_means(given: argparse.Namespace, cells, conditions) -> None:
    """One line per data set and condition: the mean gain over its seeds.

    The interval is a paired bootstrap over test rows, each row's difference being its mean over the seeds: it tells
    how sure the mean of these runs is, given the rows; the spread over seeds stands beside it.
    """
    groups: dict[tuple[str, str], list[tuple[RunFolder, dict[str, Any]]]] = {}
    for data, name, _, run, result in finished(given, cells, conditions):
        groups.setdefault((data, name), []).append((run, result))
    print("\n| data | condition | runs | mean gain, 95% interval | per seed | mean fidelity | on task | prompts |")
    print("| --- | --- | ---: | --- | --- | ---: | ---: | ---: |")
    for (data, name), runs in groups.items():
        scores = {who: np.array([scores_of(run, who) for run, _ in runs]) for who in ("initial", "rewrite")}
        mean = paired_bootstrap(scores["rewrite"].mean(axis=0), scores["initial"].mean(axis=0))
        each = " ".join(f"{100 * result['test']['differences']['rewrite']['mean']:+.1f}" for _, result in runs)
        fidelity = np.mean([result["fidelity"]["rewrite"] for _, result in runs])
        on_task = sum(not violations(result) and result["fidelity"]["rewrite"] >= 0.25 for _, result in runs)
        prompts = np.mean([result["cost"]["task_model"]["prompts"] for _, result in runs])
        points = f"{100 * mean.mean:+.1f} ({100 * mean.low:+.1f} to {100 * mean.high:+.1f})"
        shown = [points, each, f"{fidelity:.2f}", f"{on_task} of {len(runs)}", f"{prompts:,.0f}"]
        print(f"| {data} | {name} | {len(runs)} | {' | '.join(shown)} |")


def print_calibrated(given: argparse.Namespace, cells, conditions) -> None:
    """As `print_means`, after batch calibration (`prewrite.choosing.labels`) under both instructions."""
    groups: dict[tuple[str, str], list[Evaluation]] = {}
    for data, name, _, run, result in finished(given, cells, conditions):
        config = TrainConfig(**RunFolder.read_json(run.config)["config"])
        texts = {who: found["instruction"] for who, found in result["test"]["instructions"].items()}
        (rows,) = open_instructions(config, open_splits(config))
        groups.setdefault((data, name), []).append(evaluate(open_evaluator(config), texts, list(rows.test)))
    print("\n| data | condition | runs | initial, calibrated | mean gain, 95% interval | per seed |")
    print("| --- | --- | ---: | ---: | --- | --- |")
    for (data, name), found in groups.items():
        before, after = (
            np.mean([one.results[who].calibrated for one in found], axis=0) for who in ("initial", "rewrite")
        )
        mean = paired_bootstrap(after, before)
        points = f"{100 * mean.mean:+.1f} ({100 * mean.low:+.1f} to {100 * mean.high:+.1f})"
        each = " ".join(f"{100 * one.calibrated['rewrite'].mean:+.1f}" for one in found)
        print(f"| {data} | {name} | {len(found)} | {before.mean():.3f} | {points} | {each} |")


def print_learning(given: argparse.Namespace, cells, conditions) -> None:
    """One line per data set and algorithm: how much more its rewrites earn in training than the control's.

    Runs of one seed draw the same examples in every update, so the difference of an update's means is free of how
    hard they were. The later half of the updates of all seeds; the interval is a bootstrap over updates.
    """
    runs = {(data, name, seed): run for data, name, seed, run, _ in finished(given, cells, conditions)}
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for (data, name, seed), run in runs.items():
        control = runs.get((data, CONTROL, seed))
        if control is None or name == CONTROL:
            continue
        ours, theirs = means_by_update(run), means_by_update(control)
        steps = sorted(ours.keys() & theirs.keys())
        for part in ("reward", "task"):
            lead = found.setdefault((data, name), {"reward": [], "task": []})[part]
            lead += [ours[step][part] - theirs[step][part] for step in steps[len(steps) // 2 :]]
    print(f"\n| data | algorithm | updates | reward beyond {CONTROL} | task part beyond {CONTROL} |")
    print("| --- | --- | ---: | --- | --- |")
    for (data, name), leads in found.items():
        shown = []
        for lead in leads.values():
            mean = paired_bootstrap(np.array(lead), np.zeros(len(lead)))
            shown.append(f"{mean.mean:+.3f} ({mean.low:+.3f} to {mean.high:+.3f})")
        print(f"| {data} | {name} | {len(leads['task'])} | {' | '.join(shown)} |")


def means_by_update(run: RunFolder) -> dict[int, dict[str, float]]:
    """Update -> mean reward of its rewrites, and mean task part."""
    rewards: dict[int, list[tuple[float, float]]] = {}
    for row in run.read_rows(run.rollouts):
        rewards.setdefault(row["step"], []).append((row["reward"], row["parts"]["task"]))
    return {
        step: dict(zip(("reward", "task"), np.mean(pairs, axis=0).tolist(), strict=True))
        for step, pairs in rewards.items()
    }


def scores_of(run: RunFolder, who: str) -> list[float]:
    """Test scores of one instruction, in the order of the rows."""
    return [row["answers"][who]["score"] for row in run.read_rows(run.items)]


if __name__ == "__main__":
    main()
