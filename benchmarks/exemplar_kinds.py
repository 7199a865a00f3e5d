"""Which rows make good exemplars: random ones, ones unlike each other, or ones that the task model gets wrong?

    python benchmarks/exemplar_kinds.py --data FOLDER_OF_DATA_SETS --datasets sst2,agnews,subj,demo

Every kind gives `--sets` sets of the same size with labels as even as the size allows; all are scored on the same dev
rows, instruction first, and once more with the examples first. `diverse`: farthest-first on the task model's own last
states of the inputs, from a random start. `hard`: rows whose right label the task model finds unlikely under the
initial prompt. Accuracy is that after batch calibration. What counts for a search is the best of many, so the table
has the mean and the best of the sets, chosen on one half of the rows and measured on the other.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from prewrite.choosing.exemplars import pools_of, random_sets, set_sizes
from prewrite.run.build import open_evaluator, open_instructions, open_splits
from prewrite.run.config import SearchConfig
from prewrite.run.search import initial_prompt
from prewrite.scoring.offsets import batch_offsets, gold_indices
from prewrite.scoring.prompt import Exemplar
from prewrite.task_models.hf import HFTaskModel
from prewrite.types import RewriteExample

Floats = NDArray[np.float64]


def main() -> None:
    """Score the sets of every kind, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of folders with train, dev and test files")
    parser.add_argument("--datasets", default="sst2,agnews,subj,demo")
    parser.add_argument("--sets", type=int, default=12)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    model = HFTaskModel("embedded")
    print("| data | layout | kind | mean of sets | their standard deviation | best by one half, on the other |")
    print("| --- | --- | --- | ---: | ---: | ---: |")
    for name in given.datasets.split(","):
        config = SearchConfig(dataset=["demo" if name == "demo" else str(given.data / name)])
        rows, evaluator = open_instructions(config, open_splits(config))[0], open_evaluator(config)
        initial = initial_prompt(config, rows, evaluator)
        labels = rows.dev[0].choices or ()
        size = set_sizes(len(labels))[-1]
        pool = list(pools_of(list(rows.train or ()), [size])[0].rows)[:400]
        scores = np.array([answer.label_logprobs for answer in evaluator.answers([initial], pool)[0]])
        gold = gold_indices(labels, [row.targets for row in pool])
        hardness = -(scores - batch_offsets(scores))[np.arange(len(pool)), gold]
        kinds = {
            "random": random_sets(pools_of(pool, [size]), given.sets, seed=given.seed),
            "diverse": farthest_sets(
                pool, states_of(model, [row.input for row in pool]), size, given.sets, given.seed
            ),
            "hard": weighted_sets(pool, hardness, size, given.sets, given.seed),
        }
        dev = list(rows.dev)[: given.rows]
        right = gold_indices(labels, [row.targets for row in dev])
        for layout in ("instruction_first", "exemplars_first"):
            for kind, sets in kinds.items():
                prompts = [replace(initial, exemplars=each, layout=layout) for each in sets]
                found = evaluator.answers(prompts, dev)
                table = np.array([[answer.label_logprobs for answer in each] for each in found])
                correct = np.array([(each - batch_offsets(each)).argmax(1) == right for each in table])
                halves = correct[:, ::2].mean(1), correct[:, 1::2].mean(1)
                best = (halves[1][halves[0].argmax()] + halves[0][halves[1].argmax()]) / 2
                means = correct.mean(1)
                print(
                    f"| {name} | {layout} | {kind} | {means.mean():.3f} | {means.std():.3f} | {best:.3f} |", flush=True
                )


@torch.inference_mode()
def states_of(model: HFTaskModel, texts: Sequence[str]) -> Floats:
    """The mean of the last states over each text's tokens, scaled to length 1; (text, D)."""
    found = []
    for text in texts:
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        cache = model.trunk.new_cache(1, ids.shape[1])
        state = model.trunk(ids, torch.arange(ids.shape[1])[None], cache)[0].float().mean(0)
        found.append((state / state.norm()).numpy())
    return np.array(found, dtype=np.float64)


def farthest_sets(
    pool: Sequence[RewriteExample], states: Floats, size: int, count: int, seed: int
) -> list[tuple[Exemplar, ...]]:
    """Sets in which each exemplar is the one of the next label that is farthest from those before it."""
    rng = np.random.default_rng(seed)
    by_label = groups_of(pool)
    found = []
    for _ in range(count):
        queue = [label for _ in range(size) for label in rng.permutation(sorted(by_label))][:size]
        chosen = [int(rng.choice(by_label[queue[0]]))]
        for label in queue[1:]:
            candidates = rng.permutation([row for row in by_label[label] if row not in chosen])[:60]  # else all alike
            near = (states[candidates] @ states[chosen].T).max(1)
            chosen.append(int(candidates[near.argmin()]))
        found.append(tuple(exemplar(pool[row]) for row in rng.permutation(chosen)))
    return found


def weighted_sets(
    pool: Sequence[RewriteExample], hardness: Floats, size: int, count: int, seed: int
) -> list[tuple[Exemplar, ...]]:
    """Sets of rows drawn from the harder half of each label."""
    rng = np.random.default_rng(seed)
    by_label = {
        label: [row for row in rows if hardness[row] >= np.median(hardness[rows])]
        for label, rows in groups_of(pool).items()
    }
    found = []
    for _ in range(count):
        queues = {label: list(rng.permutation(rows)) for label, rows in by_label.items()}
        queue = [label for _ in range(size) for label in rng.permutation(sorted(by_label))][:size]
        found.append(tuple(exemplar(pool[int(queues[label].pop())]) for label in queue))
    return found


def groups_of(pool: Sequence[RewriteExample]) -> dict[str, list[int]]:
    """The numbers of the rows of each label."""
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(pool):
        groups.setdefault(row.targets[0], []).append(number)
    return groups


def exemplar(row: RewriteExample) -> Exemplar:
    """A row as it is shown."""
    return Exemplar(row.input, row.targets[0])


if __name__ == "__main__":
    main()
