"""How much of a rewrite's reward is the rewrite, and how much is luck with the rows that it was graded on?

    python benchmarks/reward_noise.py --data FOLDER_OF_DATA_SETS --datasets sst2,agnews,demo --output runs/reward_noise

Different rewrites, sampled from the untrained rewriter, are graded on the same train rows. **Reliability** at n rows
is the correlation of two means over n rows each, none in both, averaged over draws: the share of a reward's variance
that is the rewrite's own. It bounds what training can learn from that many rows. **Agreement** is the correlation
over rewrites of the mean log-probability with accuracy after batch calibration, both on all rows. Rewrites are graded
bare and with a set of exemplars before them, plain (as the reward `soft` does) and after batch calibration.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prewrite.choosing.exemplars import random_set, set_sizes
from prewrite.rewriter.rewriter import Rewriter
from prewrite.run.build import open_evaluator, open_instructions, open_splits
from prewrite.run.config import SearchConfig
from prewrite.run.search import initial_prompt
from prewrite.scoring.offsets import batch_offsets, calibrated_logprob, gold_indices, gold_logprob
from prewrite.scoring.prompt import TaskPrompt

Floats = NDArray[np.float64]
ROWS = (8, 16, 32, 64)
DRAWS = 400


def main() -> None:
    """Grade what is not graded, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of folders with train, dev and test files")
    parser.add_argument("--datasets", default="sst2,agnews,demo")
    parser.add_argument("--rewrites", type=int, default=64)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--output", type=Path, required=True, help="folder for the label scores")
    given = parser.parse_args()
    sizes = [size for size in ROWS if 2 * size <= given.rows]
    print(f"| data | prompt | reward | {' | '.join(f'{size} rows' for size in sizes)} | agreement |")
    print(f"| --- | --- | --- | {' | '.join('---:' for _ in sizes)} | ---: |")
    for name in given.datasets.split(","):
        file = given.output / f"{name}.npz"
        if not file.is_file():
            grade(given, name, file)
        with np.load(file) as found:
            gold = found["gold"]
            for prompt in ("bare", "with exemplars"):
                table = found[prompt]
                right = np.array([(each - batch_offsets(each)).argmax(1) == gold for each in table]).mean(1)
                for reward, of_rows in (("plain", gold_logprob), ("calibrated", calibrated_logprob)):
                    grades = np.array([of_rows(each, gold) for each in table])
                    found_at = " | ".join(f"{reliability(grades, size):.2f}" for size in sizes)
                    agreement = np.corrcoef(grades.mean(1), right)[0, 1]
                    print(f"| {name} | {prompt} | {reward} | {found_at} | {agreement:.2f} |", flush=True)


def grade(given: argparse.Namespace, name: str, file: Path) -> None:
    """Write the label log-probabilities (rewrite, row, label) of a data set."""
    config = SearchConfig(dataset=["demo" if name == "demo" else str(given.data / name)])
    rows, evaluator = open_instructions(config, open_splits(config))[0], open_evaluator(config)
    train = list(rows.train or ())
    labels = train[0].choices or ()
    shown, graded = train[given.rows :], train[: given.rows]
    exemplars = random_set(shown, set_sizes(len(labels))[-1], seed=0)
    rewriter = Rewriter.untrained("embedded")
    rewrites: list[str] = []
    for seed in range(100):
        rewrites += rewriter.sample_rewrites(rows.instruction, given.rewrites, seed=seed)
        rewrites = list(dict.fromkeys(text for text in rewrites if text.strip()))[: given.rewrites]
        if len(rewrites) == given.rewrites:
            break
    bare = initial_prompt(config, rows, evaluator)
    found = {"gold": gold_indices(labels, [row.targets for row in graded])}
    starts: dict[str, TaskPrompt] = {
        "bare": bare,
        "with exemplars": replace(bare, exemplars=exemplars, layout="exemplars_first"),
    }
    for prompt, start in starts.items():
        answers = evaluator.answers([start.with_instruction(text) for text in rewrites], graded)
        found[prompt] = np.array([[answer.label_logprobs for answer in each] for each in answers])
    given.output.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **found)


def reliability(grades: Floats, rows: int) -> float:
    """The mean correlation of two means over `rows` rows each; grades (rewrite, row)."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(DRAWS):
        order = rng.permutation(grades.shape[1])
        one, other = grades[:, order[:rows]].mean(1), grades[:, order[rows : 2 * rows]].mean(1)
        found.append(np.corrcoef(one, other)[0, 1])
    return float(np.mean(found))


if __name__ == "__main__":
    main()
