"""What each part of a prompt brings at equal task-model calls: label offsets, exemplars, wording, all of them.

    python benchmarks/whole_prompt.py --data FOLDER_OF_DATA_SETS --output runs/whole_prompt.jsonl

A cell is a data set, a seed and a number of calls. The seed draws dev and train rows from the data set's train and dev
files, the sets of exemplars and the wordings; test rows are the same for all seeds. In each cell every arm is a search
of its own with that many calls, and all prompts are measured on the same test rows. Finished cells are not run again,
so that a study can be stopped and continued. `--table` only prints what is there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prewrite.choosing.evaluate import evaluate
from prewrite.choosing.evaluation import points
from prewrite.choosing.stats import paired_bootstrap
from prewrite.data import PRewriteDataset
from prewrite.run.build import InstructionRows, open_evaluator, open_instructions, open_reward, open_splits
from prewrite.run.config import SearchConfig
from prewrite.run.search import find_prompt, open_proposer, wordings_of
from prewrite.scoring.prompt import PARTS

DATA = "sst2,agnews,subj,mr,sst5,demo,ii_sentiment,ii_singular_to_plural,ii_first_word_letter,ii_negation"
ARMS = {
    "offsets": ["offsets"],
    "wording": ["instruction"],
    "exemplars": ["exemplars"],
    "without wording": ["answer_line", "exemplars", "offsets"],
    "whole prompt": list(PARTS),
}
NO_OFFSETS = "without offsets"
"""The whole prompt of its arm, less its label offsets."""
COLUMNS = ("initial", "offsets", "wording", "exemplars", "without wording", NO_OFFSETS, "whole prompt")
NAMES = {"sst2": "SST-2", "agnews": "AG News", "subj": "Subj", "mr": "MR", "sst5": "SST-5"}


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of folders with train, dev and test files")
    parser.add_argument("--datasets", default=DATA)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--calls", default="1000,2700")
    parser.add_argument("--decoding", default="auto")
    parser.add_argument("--test-rows", type=int, default=500)
    parser.add_argument("--output", type=Path, required=True, help="JSONL file, one line a cell")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if not given.table:
        done = {key_of(cell) for cell in read(given.output)}
        for calls in map(int, given.calls.split(",")):
            for seed in map(int, given.seeds.split(",")):
                for name in given.datasets.split(","):
                    if (name, given.decoding, seed, calls) not in done:
                        cell = run_cell(given, name, seed, calls)
                        with given.output.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(cell, ensure_ascii=False) + "\n")
    print_table(read(given.output))


def run_cell(given: argparse.Namespace, name: str, seed: int, calls: int) -> dict[str, Any]:
    """Search with every arm, and measure what they found."""
    started = time.perf_counter()
    config = SearchConfig(
        dataset=["demo" if name == "demo" else str(given.data / name)],
        task_model_options={"max_new_tokens": "16"},
        decoding=given.decoding,
        rewriter="embedded",
        search_calls=calls,
        seed=seed,
    )
    rows = drawn(open_instructions(config, open_splits(config))[0], given.test_rows, seed)
    evaluator = open_evaluator(config)
    reward = open_reward(config, evaluator, [rows.dev[0]])
    wordings, refused = wordings_of(config, rows, reward, open_proposer(config.rewriter))
    found = {arm: find_prompt(replace(config, parts=parts), rows, evaluator, wordings) for arm, parts in ARMS.items()}
    prompts = {"initial": found["whole prompt"].initial} | {arm: one.prompt for arm, one in found.items()}
    prompts[NO_OFFSETS] = replace(prompts["whole prompt"], label_offsets=None)
    measured = evaluate(evaluator, prompts, list(rows.test or ()), seed=0)
    seconds = time.perf_counter() - started
    print(f"{name} seed {seed}, {calls} calls: {seconds:.0f} s; {len(refused)} wordings refused", file=sys.stderr)
    return {
        "data": name,
        "decoding": config.decoding,
        "seed": seed,
        "calls": calls,
        "seconds": round(seconds),
        "spent": {arm: one.calls for arm, one in found.items()},
        "prompts": {arm: prompt.to_json() for arm, prompt in prompts.items()},
        "scores": {arm: result.scores.round(4).tolist() for arm, result in measured.results.items()},
    }


def drawn(rows: InstructionRows, test_rows: int, seed: int) -> InstructionRows:
    """The rows with dev drawn anew by the seed, as many as before, and the first test rows of one shuffle."""
    assert rows.train is not None and rows.test is not None
    pool = PRewriteDataset.from_examples([*rows.train, *rows.dev])
    order = np.random.default_rng([seed, *b"draw"]).permutation(len(pool))
    dev, train = np.sort(order[: len(rows.dev)]), np.sort(order[len(rows.dev) :])
    test = np.sort(np.random.default_rng(0).permutation(len(rows.test))[:test_rows])
    return InstructionRows(rows.instruction, pool.select(train), pool.select(dev), rows.test.select(test))


def read(path: Path) -> list[dict[str, Any]]:
    """The finished cells."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def key_of(cell: dict[str, Any]) -> tuple[str, str, int, int]:
    """What names a cell."""
    return cell["data"], cell["decoding"], cell["seed"], cell["calls"]


def print_table(cells: list[dict[str, Any]]) -> None:
    """Each arm's test score, cell by cell, and then the means over the seeds with the intervals of two gains.

    The gain over the initial prompt is that of the search without wordings, the default with so few calls.
    """
    scored = {key_of(cell): {arm: np.array(cell["scores"][arm]) for arm in COLUMNS} for cell in cells}
    print(f"| data | calls | seed | {' | '.join(COLUMNS)} |")
    print("| --- | ---: | ---: |" + " ---: |" * len(COLUMNS))
    groups: dict[tuple[str, str, int], list[dict[str, NDArray[np.float64]]]] = {}
    for (name, decoding, seed, calls), arms in sorted(scored.items(), key=lambda cell: (cell[0][3], cell[0][2])):
        means = " | ".join(f"{scores.mean():.3f}" for scores in arms.values())
        print(f"| {title(name, decoding)} | {calls:,} | {seed} | {means} |")
        groups.setdefault((name, decoding, calls), []).append(arms)
    print(f"\n| data | calls | seeds | {' | '.join(COLUMNS)} | gain over initial | gain of wordings |")
    print("| --- | ---: | ---: |" + " ---: |" * len(COLUMNS) + " --- | --- |")
    for (name, decoding, calls), group in groups.items():
        scores = {arm: np.mean([arms[arm] for arms in group], axis=0) for arm in COLUMNS}
        means = " | ".join(f"{scores[arm].mean():.3f}" for arm in COLUMNS)
        default = scores["without wording"]
        gains = [gain(default, scores["initial"]), gain(scores["whole prompt"], default)]
        print(f"| {title(name, decoding)} | {calls:,} | {len(group)} | {means} | {' | '.join(gains)} |")


def gain(scores: NDArray[np.float64], others: NDArray[np.float64]) -> str:
    """Mean difference with its interval over test rows, in points."""
    found = paired_bootstrap(scores, others, seed=0)
    return f"{points(found.mean)} ({points(found.low)} to {points(found.high)})"


def title(name: str, decoding: str) -> str:
    """A data set as the tables call it."""
    return NAMES.get(name, name) + ("" if decoding == "auto" else f", read as {decoding}")


if __name__ == "__main__":
    main()
