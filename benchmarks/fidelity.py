"""How well the fidelity score tells honest rewrites from rewrites of another task.

Honest pairs are the warm-start corpus: an instruction and a rewrite that a person wrote for it. Strangers are the same
rewrites beside the instruction of another task, of the same kind (the hard case) or of any. Prints the distribution,
the area under the ROC curve, and what the default floor would refuse of each.

    python benchmarks/fidelity.py
"""

from __future__ import annotations

import argparse

import numpy as np

from prewrite.scoring.fidelity import Fidelity
from prewrite.scoring.guards.english import content_words
from prewrite.scoring.rewards import MIN_FIDELITY
from prewrite.task_models.hf import HFTaskModel
from prewrite.train.warm_start import load_pairs


def main() -> None:
    """Judge a sample and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=200, help="pairs of each kind")
    parser.add_argument("--judge", default="embedded")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    corpus = load_pairs()
    sample = [corpus[i] for i in rng.permutation(len(corpus))[: given.pairs]]

    tasks = sorted({pair.instruction for pair in corpus})
    content = {task: set(content_words(task)) for task in tasks}

    def stranger(pair, *, near: bool):
        others = [task for task in tasks if task != pair.instruction]
        if near:  # the task that shares most content words with the rewrite's own
            return max(
                others, key=lambda task: len(content[task] & content[pair.instruction]) / len(content[task] | {""})
            )
        return others[rng.integers(len(others))]

    groups = {
        "honest rewrite": [(pair.rewrite, pair.instruction) for pair in sample],
        "rewrite of the nearest other task": [(pair.rewrite, stranger(pair, near=True)) for pair in sample],
        "rewrite of any other task": [(pair.rewrite, stranger(pair, near=False)) for pair in sample],
    }
    fidelity = Fidelity(HFTaskModel(given.judge))
    scores = {
        name: np.array([fidelity([text], wanted)[0] for text, wanted in pairs]) for name, pairs in groups.items()
    }
    honest = scores["honest rewrite"]
    print(f"Judge: {given.judge}; {len(sample)} pairs each; floor {MIN_FIDELITY}.\n")
    print("| pairs | 10% | median | 90% | below the floor | AUC against honest |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, found in scores.items():
        low, middle, high = np.quantile(found, [0.1, 0.5, 0.9])
        area = (honest[:, None] > found).mean() + 0.5 * (honest[:, None] == found).mean()
        shown = "" if name == "honest rewrite" else f"{area:.3f}"
        print(f"| {name} | {low:.2f} | {middle:.2f} | {high:.2f} | {(found < MIN_FIDELITY).mean():.0%} | {shown} |")


if __name__ == "__main__":
    main()
