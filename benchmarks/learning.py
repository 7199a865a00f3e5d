"""Does training the rewriter beat choosing, at equal task-model calls?

    python benchmarks/learning.py --data FOLDER_OF_DATA_SETS --output runs/learning

A cell is a data set and a seed, which draws dev and train rows; test rows are the same for all seeds. Its arms have
the same number of task-model calls and end in the same search of the whole prompt:

- `without wording`: all calls go to answer lines, exemplars and label offsets;
- `untrained`: wordings of the untrained rewriter take part;
- `trained`: half of the calls train the rewriter by PPO, dev scores included; its greedy rewrite, samples and best
  rollouts take part in a search with the other half.

The endpoint, fixed before the first cell was run (docs/learning.md): trained less untrained, mean over data sets, as
shipped, with an interval over data sets, seeds and test rows drawn together. Finished cells are not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from whole_prompt import NAMES, drawn

from prewrite.choosing.evaluate import evaluate
from prewrite.choosing.evaluation import points
from prewrite.run.build import InstructionRows, open_evaluator, open_instructions, open_reward, open_splits
from prewrite.run.config import SearchConfig, TrainConfig
from prewrite.run.search import find_prompt, open_proposer, wordings_of
from prewrite.run.train import run_training
from prewrite.scoring.prompt import PARTS, load_prompt

ARMS = ("initial", "without wording", "untrained", "trained")
TRAINING = dict(
    reward_mode="soft",
    rewrites_per_step=16,
    examples_per_rewrite=8,
    response_length=40,
    learning_rate=4e-4,
    eval_steps=3,
    dev_examples=60,
    strategy="S",
)
"""The settings of the recipes."""
UPDATES = 9
TRAINING_CALLS = UPDATES * 16 * 8 + (UPDATES // 3 + 1) * 60


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of folders with train, dev and test files")
    parser.add_argument("--datasets", default="sst2,agnews,demo,subj,mr,sst5,ii_sentiment")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--calls", type=int, default=2700)
    parser.add_argument("--test-rows", type=int, default=500)
    parser.add_argument("--output", type=Path, required=True, help="JSONL file, one line a cell")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    given = parser.parse_args()
    cells = [json.loads(line) for line in given.output.read_text().splitlines()] if given.output.is_file() else []
    if not given.table:
        for seed in map(int, given.seeds.split(",")):
            for name in given.datasets.split(","):
                if not any((cell["data"], cell["seed"]) == (name, seed) for cell in cells):
                    cells.append(run_cell(given, name, seed))
                    with given.output.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(cells[-1], ensure_ascii=False) + "\n")
    print_table(cells)


def run_cell(given: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """All arms on one draw of rows, measured on the same test rows."""
    started = time.perf_counter()
    source = SearchConfig(dataset=["demo" if name == "demo" else str(given.data / name)])
    rows = drawn(open_instructions(source, open_splits(source))[0], given.test_rows, seed)
    with tempfile.TemporaryDirectory() as folder:
        data = [str(saved(rows, Path(folder) / name))]
        config = SearchConfig(dataset=data, rewriter="embedded", search_calls=given.calls, seed=seed)
        evaluator = open_evaluator(config)
        reward = open_reward(config, evaluator, [rows.dev[0]])
        wordings, _ = wordings_of(config, rows, reward, open_proposer(config.rewriter))
        found = {
            "without wording": find_prompt(replace(config, parts=list(PARTS[1:])), rows, evaluator, []),
            "untrained": find_prompt(config, rows, evaluator, wordings),
        }
        prompts = {"initial": found["untrained"].initial} | {arm: one.prompt for arm, one in found.items()}
        run = Path(folder) / "run"
        run_training(
            TrainConfig(
                dataset=data,
                output_dir=str(run),
                max_steps=UPDATES,
                search_calls=given.calls - TRAINING_CALLS,
                num_candidates=config.num_candidates,
                test_examples=20,  # measured below, with the others
                seed=seed,
                **TRAINING,  # type: ignore[arg-type]
            )
        )
        prompts["trained"] = load_prompt(run)
        measured = evaluate(evaluator, prompts, list(rows.test or ()), seed=0)
    print(f"{name} seed {seed}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return {
        "data": name,
        "seed": seed,
        "calls": given.calls,
        "prompts": {arm: prompt.to_json() for arm, prompt in prompts.items()},
        "scores": {arm: result.scores.round(4).tolist() for arm, result in measured.results.items()},
    }


def saved(rows: InstructionRows, folder: Path) -> Path:
    """The rows as a folder of train, dev and test files."""
    folder.mkdir(parents=True)
    for part in ("train", "dev", "test"):
        with (folder / f"{part}.jsonl").open("w", encoding="utf-8") as file:
            for row in getattr(rows, part):
                fields = {"instruction": row.instruction, "input": row.input, "output": row.output}
                fields |= {"choices": list(row.choices)} if row.choices else {}
                file.write(json.dumps(fields, ensure_ascii=False) + "\n")
    return folder


def print_table(cells: Sequence[dict[str, Any]]) -> None:
    """Each arm's accuracy, cell by cell, then the differences of arms over all cells."""
    print(f"| data | seed | {' | '.join(ARMS)} | trained less untrained |")
    print("| --- | ---: |" + " ---: |" * len(ARMS) + " ---: |")
    for cell in cells:
        means = [float(np.mean(cell["scores"][arm])) for arm in ARMS]
        shown = " | ".join(f"{mean:.3f}" for mean in means)
        print(
            f"| {NAMES.get(cell['data'], cell['data'])} | {cell['seed']} | {shown} | {points(means[3] - means[2])} |"
        )
    print()
    for one, other in (("trained", "untrained"), ("trained", "without wording"), ("untrained", "without wording")):
        mean, low, high = difference(cells, one, other)
        print(f"- {one} less {other}: {points(mean)} ({points(low)} to {points(high)})")


def difference(cells: Sequence[dict[str, Any]], one: str, other: str) -> tuple[float, float, float]:
    """Mean over data sets of the difference of two arms, and its 95% interval; sets, seeds and rows are drawn."""
    by_set: dict[str, list[NDArray[np.float64]]] = {}
    for cell in cells:
        scores = np.array(cell["scores"][one]) - np.array(cell["scores"][other])
        by_set.setdefault(cell["data"], []).append(scores)
    rng = np.random.default_rng(0)

    def drawn_mean() -> float:
        found = []
        for name in rng.choice(sorted(by_set), len(by_set)):
            seeds = by_set[name]
            rows = rng.integers(len(seeds[0]), size=len(seeds[0]))
            found.append(np.mean([seeds[seed][rows].mean() for seed in rng.integers(len(seeds), size=len(seeds))]))
        return float(np.mean(found))

    low, high = np.quantile([drawn_mean() for _ in range(4000)], (0.025, 0.975))
    return (
        float(np.mean([np.mean([each.mean() for each in seeds]) for seeds in by_set.values()])),
        float(low),
        float(high),
    )


if __name__ == "__main__":
    main()
