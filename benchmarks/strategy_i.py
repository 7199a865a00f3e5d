"""What training brings to a rewriter that answers with one rewrite (PRewrite-I), measured on test rows.

    python benchmarks/strategy_i.py runs/study/*-recipe-? runs/study/*-algorithm-*

For each finished run of one instruction: the greedy rewrite before the first update and that of the policy which the
run kept, on the run's test rows. Nothing is chosen here: dev rows decided which policy was kept. Runs are grouped by
data set and algorithm; a group's interval is a paired bootstrap over test rows, each row's difference being its mean
over the runs: it tells how sure the mean of these runs is, and the figures per run tell how far runs lie apart.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prewrite.choosing.stats import paired_bootstrap
from prewrite.run.build import open_evaluator, open_instructions, open_splits
from prewrite.run.config import TrainConfig
from prewrite.run_folder import RunFolder


class Greedy(NamedTuple):
    """One run's greedy rewrites and their scores per test row."""

    run: str
    before: str
    after: str
    scores: np.ndarray  # (3, test rows): initial instruction, before, after


def main() -> None:
    """Measure each run; print the groups, then the rewrites."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "runs", nargs="+", type=Path, help="run folders with one instruction, test rows and eval_steps"
    )
    given = parser.parse_args()
    groups: dict[tuple[str, str], list[Greedy]] = defaultdict(list)
    for path in given.runs:
        config = TrainConfig(**RunFolder.read_json(RunFolder.open(path).config)["config"])
        groups[Path(config.dataset[0]).name, config.algorithm.upper()].append(measure(path, config))

    print("| data | algorithm | runs | initial | before | after | after - before, 95% interval, points | per run |")
    print("| --- | --- | ---: | ---: | ---: | ---: | --- | --- |")
    for (data, algorithm), runs in groups.items():
        initial, before, after = np.mean([run.scores for run in runs], axis=0)
        gain = paired_bootstrap(after, before)
        means = " | ".join(f"{scores.mean():.3f}" for scores in (initial, before, after))
        shown = f"{100 * gain.mean:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
        each = " ".join(f"{100 * (run.scores[2] - run.scores[1]).mean():+.1f}" for run in runs)
        print(f"| {data} | {algorithm} | {len(runs)} | {means} | {shown} | {each} |")
    print("\n| run | before | after |\n| --- | --- | --- |")
    for runs in groups.values():
        for run in runs:
            print(f"| {run.run} | {cell(run.before)} | {cell(run.after)} |")


def measure(path: Path, config: TrainConfig) -> Greedy:
    """Ask the task model with the run's greedy rewrites; the answer cache spares what was asked before."""
    run = RunFolder.open(path)
    result = RunFolder.read_json(run.result)
    before = next(
        (row for row in run.read_rows(run.rewrites) if row["event"] == "dev_eval" and row["step"] == 0), None
    )
    if before is None or not result.get("test"):
        sys.exit(f"error: {path} has no dev evaluation before the first update, or no test; give runs with both")
    texts = [result["instruction"], before["rewrite"], result["greedy"]]
    (rows,) = open_instructions(config, open_splits(config))
    scores = open_evaluator(config).score(texts, list(rows.test))
    return Greedy(path.name, before["rewrite"], result["greedy"], np.asarray(scores))


def cell(text: str) -> str:
    """`text` in a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
