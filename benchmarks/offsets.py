"""How many rows label offsets need, and what they do where labels are not equally frequent.

    python benchmarks/offsets.py runs/label_scores/sst2.npz runs/label_scores/agnews.npz

Reads the label scores that halving.py keeps. For the initial prompt, and as a mean over the best prompts by dev rows,
offsets are found on 25 to 200 dev rows, drawn anew each time, and accuracy is measured on test rows: as they are, and
as a stream in which one label has 70% of the rows and the others share the rest (mean over the labels). "of the
stream": batch calibration on rows that come as the stream does, which takes the stream's own frequencies out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prewrite.scoring.offsets import batch_offsets, calibrated_logprob, choose_offsets, fitted_offsets

Floats = NDArray[np.float64]
BEST = 8
"""Prompts that the second line of a data set is the mean of."""
SHARE = 0.7
METHODS: dict[str, Callable[[Floats, NDArray[np.intp]], Floats]] = {
    "none": lambda logprobs, gold: np.zeros(logprobs.shape[1]),
    "batch": lambda logprobs, gold: batch_offsets(logprobs),
    "fitted": fitted_offsets,
    "chosen": lambda logprobs, gold: choose_offsets(logprobs, gold).values,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", type=Path, nargs="+", help="label scores of halving.py")
    parser.add_argument("--rows", default="25,50,100,200", help="dev rows that offsets are found on")
    parser.add_argument("--draws", type=int, default=40)
    given = parser.parse_args()
    even, stream = " | ".join(METHODS), " | ".join(f"{name}, 70:30" for name in METHODS)
    print(f"| data | prompt | rows | {even} | {stream} | of the stream, 70:30 |")
    print("| --- | --- | ---: | " + " | ".join("---:" for _ in range(2 * len(METHODS) + 1)) + " |")
    for file in given.files:
        with np.load(file) as scores:
            dev, dev_gold, test, test_gold = (scores[name] for name in ("dev", "dev_gold", "test", "test_gold"))
        worth = [calibrated_logprob(each, dev_gold).mean() for each in dev]
        for name, prompts in {"initial": [0], f"best {BEST}": np.argsort(worth)[::-1][:BEST]}.items():
            for count in map(int, given.rows.split(",")):
                cells = [
                    accuracies(dev[prompt], dev_gold, test[prompt], test_gold, min(count, len(dev_gold)), draw)
                    for prompt in prompts
                    for draw in range(given.draws)
                ]
                means = " | ".join(f"{value:.3f}" for value in np.mean(cells, axis=0))
                print(f"| {file.stem} | {name} | {count} | {means} |")


def accuracies(
    dev: Floats, dev_gold: NDArray[np.intp], test: Floats, test_gold: NDArray[np.intp], count: int, draw: int
) -> list[float]:
    """Accuracy of each method on test rows, then on the stream, then of batch calibration on the stream's own rows."""
    rng = np.random.default_rng(draw)
    rows = rng.choice(len(dev_gold), count, replace=False)
    labels = range(dev.shape[1])
    streams = [skewed(test_gold, label, rng) for label in labels]
    found = {name: method(dev[rows], dev_gold[rows]) for name, method in METHODS.items()}
    even = [accuracy(test, test_gold, offsets) for offsets in found.values()]
    uneven = [
        float(np.mean([accuracy(test[stream], test_gold[stream], offsets) for stream in streams]))
        for offsets in found.values()
    ]
    own = []
    for label, stream in zip(labels, streams, strict=True):
        seen = rng.choice(skewed(dev_gold, label, rng), count)
        own.append(accuracy(test[stream], test_gold[stream], batch_offsets(dev[seen])))
    return [*even, *uneven, float(np.mean(own))]


def skewed(gold: NDArray[np.intp], label: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Rows drawn with replacement, as many as there are, `SHARE` of them of one label."""
    mine, others = np.flatnonzero(gold == label), np.flatnonzero(gold != label)
    many = round(SHARE * len(gold))
    return np.concatenate([rng.choice(mine, many), rng.choice(others, len(gold) - many)])


def accuracy(logprobs: Floats, gold: NDArray[np.intp], offsets: Floats) -> float:
    """Share of right labels once the offsets are off."""
    return float(((logprobs - offsets).argmax(axis=1) == gold).mean())


if __name__ == "__main__":
    main()
