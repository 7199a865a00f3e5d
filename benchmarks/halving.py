"""How to choose the best of many prompts within a budget: successive halving or the race, on real scores.

    python benchmarks/halving.py --data FOLDER_OF_DATA_SETS --datasets sst2,agnews --output runs/label_scores

Every prompt around the initial instruction that a search would try (answer lines, sets of exemplars, both layouts) is
scored once on dev and test rows. The label scores are kept in `--output`, one file a data set, and not asked for
again. Then searches are simulated on them, each with its own order of rows and prompts. A way's regret is the test
accuracy of the best prompt less that of the prompt that it chose, both after batch calibration. The best is the best
by luck too, so that a regret of 0 is out of reach; the ways compare.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prewrite.choosing.candidates import Candidate
from prewrite.choosing.halving import Board, halve, plan_rounds
from prewrite.choosing.race import select
from prewrite.choosing.structures import structures
from prewrite.run.build import open_evaluator, open_instructions, open_splits
from prewrite.run.config import SearchConfig
from prewrite.run.search import initial_prompt
from prewrite.scoring.offsets import batch_offsets, calibrated_logprob, gold_indices
from prewrite.types import RewriteExample

Floats = NDArray[np.float64]


class Scores(NamedTuple):
    """Label log-probabilities (prompt, row, label), and the number of each row's right label, dev and test."""

    dev: Floats
    dev_gold: NDArray[np.intp]
    test: Floats
    test_gold: NDArray[np.intp]


def main() -> None:
    """Score what is not scored, simulate, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of folders with train, dev and test files")
    parser.add_argument("--datasets", default="sst2,agnews,demo")
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--dev-rows", type=int, default=300)
    parser.add_argument("--test-rows", type=int, default=300)
    parser.add_argument("--calls", default="500,1000,2700")
    parser.add_argument("--searches", type=int, default=200, help="simulated searches of each way")
    parser.add_argument("--output", type=Path, required=True, help="folder for the label scores")
    given = parser.parse_args()
    print("| data | calls | way | spent | regret in points | its standard deviation | test accuracy |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for name in given.datasets.split(","):
        scores = scores_of(given, name)
        for calls in map(int, given.calls.split(",")):
            for way, search in WAYS.items():
                spent, regret, accuracy = simulate(scores, search, calls, given.searches)
                print(
                    f"| {name} | {calls:,} | {way} | {spent.mean():,.0f} | {100 * regret.mean():.1f} | "
                    f"{100 * regret.std():.1f} | {accuracy.mean():.3f} |"
                )


def scores_of(given: argparse.Namespace, name: str) -> Scores:
    """The label scores of a data set, from the file or from the task model."""
    file = given.output / f"{name}.npz"
    if not file.is_file():
        config = SearchConfig(dataset=["demo" if name == "demo" else str(given.data / name)])
        rows, evaluator = open_instructions(config, open_splits(config))[0], open_evaluator(config)
        dev, test = list(rows.dev)[: given.dev_rows], list(rows.test or ())[: given.test_rows]
        initial = initial_prompt(config, rows, evaluator)
        more = structures(
            initial, dev[0], list(rows.train or ()), given.prompts - 1, parts=["answer_line", "exemplars"], seed=0
        )
        prompts, labels = [initial, *(candidate.prompt for candidate in more)], dev[0].choices or ()
        found: dict[str, Any] = {}
        for part, examples in (("dev", dev), ("test", test)):
            answers = evaluator.answers(prompts, examples)
            found[part] = np.array([[answer.label_logprobs for answer in each] for each in answers])
            found[f"{part}_gold"] = gold_indices(labels, [example.targets for example in examples])
        given.output.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, **found)
    with np.load(file) as stored:
        return Scores(*(stored[field] for field in Scores._fields))


def accuracy_of(logprobs: Floats, gold: NDArray[np.intp]) -> float:
    """Share of right labels after batch calibration."""
    return float(((logprobs - batch_offsets(logprobs)).argmax(axis=1) == gold).mean())


def simulate(scores: Scores, search: Search, calls: int, searches: int) -> tuple[Floats, Floats, Floats]:
    """(calls spent, regret, test accuracy) of each of `searches` searches."""
    true = np.array([accuracy_of(each, scores.test_gold) for each in scores.test])
    found = []
    for seed in range(searches):
        rng = np.random.default_rng([seed, calls])
        order = np.append(0, 1 + rng.permutation(len(true) - 1))  # the initial prompt is first
        chosen, spent = search(scores.dev[order], scores.dev_gold, calls, seed)
        found.append((spent, true.max() - true[order[chosen]], true[order[chosen]]))
    return tuple(np.array(found).T)  # type: ignore[return-value]


Search = Callable[[Floats, NDArray[np.intp], int, int], tuple[int, int]]
"""(label scores, right labels, calls, seed) to the number of the chosen prompt and the calls that it took."""


def halving(worth: Callable[[Floats, NDArray[np.intp]], float]) -> Search:
    """Successive halving as the product plays it, with `worth` of the rows that a prompt has seen."""

    def search(logprobs: Floats, gold: NDArray[np.intp], calls: int, seed: int) -> tuple[int, int]:
        plan = plan_rounds(calls, len(gold), most=len(logprobs))
        board: Board[int] = Board(lambda those, rows: [list(rows) for _ in those], len(gold), seed=seed)

        def of(candidate: int) -> float:
            rows = board.rows_of(candidate)
            return worth(logprobs[candidate][rows], gold[rows])

        ranked = halve(board, range(len(logprobs)), plan, of, incumbent=0)
        return ranked[0], board.calls

    return search


def race(logprobs: Floats, gold: NDArray[np.intp], calls: int, seed: int) -> tuple[int, int]:
    """The race by accuracy after batch calibration, among as many prompts as could see 100 rows each."""
    few = logprobs[: max(2, min(len(logprobs), calls // 100))]
    right = np.stack([(each - batch_offsets(each)).argmax(axis=1) == gold for each in few]).astype(np.float64)
    rows = [RewriteExample("Sort.", str(number), "x") for number in range(len(gold))]
    names = [Candidate(str(number), "initial" if number == 0 else "sample") for number in range(len(few))]

    def score(those: Sequence[str], examples: Sequence[RewriteExample]) -> Floats:
        return right[np.ix_([int(text) for text in those], [int(example.input) for example in examples])]

    selection = select(names, score, rows, max_items=min(len(gold), max(1, calls // len(few))), seed=seed)
    return selection.chosen, selection.calls


WAYS: dict[str, Search] = {
    "halving by calibrated log-probability": halving(lambda some, gold: float(calibrated_logprob(some, gold).mean())),
    "halving by calibrated accuracy": halving(accuracy_of),
    "halving by accuracy": halving(lambda some, gold: float((some.argmax(axis=1) == gold).mean())),
    "race": race,
}


if __name__ == "__main__":
    main()
