"""Does a policy that learns which rows make good exemplars beat halving over random sets, at equal task-model calls?

    python benchmarks/exemplar_policy.py --data FOLDER_OF_DATA_SETS --output runs/exemplar_policy.jsonl

`random`: successive halving over random sets, as the search of the whole prompt plays it. `policy`: a third of the
calls grades uniform sets on 8 rows each, a ridge regression of their worth on the mean of their rows' features gives
each row a score, and a sixth of the calls grades sets drawn by those scores (Plackett-Luce: one row after the other,
without replacement, each with a probability in proportion to the exponential of its score). It learns from both, and
the other half of the calls is a halving among sets drawn by the policy and the best seen so far. A row's features are
its last states in the task model (the first principal components), its length, and how likely the task model finds its
label. Both ways draw labels as evenly, compare by the same worth, and are tested on the same rows after batch
calibration.

`fit` is the correlation of predicted and observed worth over the second round's sets, which the first did not see.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prewrite.choosing.exemplars import pools_of, set_sizes
from prewrite.choosing.halving import Board, halve, plan_rounds
from prewrite.run.build import open_evaluator, open_instructions, open_splits
from prewrite.run.config import SearchConfig
from prewrite.run.search import initial_prompt
from prewrite.scoring.offsets import batch_offsets, calibrated_logprob, gold_indices
from prewrite.scoring.prompt import Exemplar, TaskPrompt
from prewrite.task_models.hf import HFTaskModel
from prewrite.types import RewriteExample

Floats = NDArray[np.float64]
COMPONENTS = 8
FIRST, SECOND = 1 / 3, 1 / 6
"""Of the calls, what the policy learns from."""
ROWS = 8
SHARPNESS = 2.0
"""Standard deviations of the policy's log-weights over rows."""


def main() -> None:
    """Run the cells that are missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of folders with train, dev and test files")
    parser.add_argument("--datasets", default="sst2,agnews,subj,mr,sst5,demo")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--test-rows", type=int, default=300)
    parser.add_argument("--output", type=Path, required=True, help="JSONL file, one line a cell")
    given = parser.parse_args()
    done = [json.loads(line) for line in given.output.read_text().splitlines()] if given.output.is_file() else []
    model = HFTaskModel("embedded")
    for seed in map(int, given.seeds.split(",")):
        for name in given.datasets.split(","):
            if not any((cell["data"], cell["seed"], cell["calls"]) == (name, seed, given.calls) for cell in done):
                done.append(run_cell(given, model, name, seed))
                with given.output.open("a") as file:
                    file.write(json.dumps(done[-1]) + "\n")
    print_table(done)


def run_cell(given: argparse.Namespace, model: HFTaskModel, name: str, seed: int) -> dict[str, Any]:
    """Both ways on one data set with one draw of rows."""
    config = SearchConfig(dataset=["demo" if name == "demo" else str(given.data / name)])
    rows, evaluator = open_instructions(config, open_splits(config))[0], open_evaluator(config)
    rng = np.random.default_rng(seed)
    dev, test = list(rows.dev), list(rows.test or ())[: given.test_rows]
    labels = dev[0].choices or ()
    initial = initial_prompt(config, rows, evaluator)
    size = set_sizes(len(labels))[-1]
    pool = list(pools_of(list(rows.train or ()), [size])[0].rows)
    pool = [pool[number] for number in rng.permutation(len(pool))[:300]]
    features = features_of(model, pool)

    def ask(prompts: Sequence[TaskPrompt], examples: Sequence[RewriteExample]) -> tuple[Floats, NDArray[np.intp]]:
        answers = evaluator.answers(prompts, examples)
        table = np.array([[answer.label_logprobs for answer in each] for each in answers])
        return table, gold_indices(labels, [example.targets for example in examples])

    def prompt_of(chosen: Sequence[int]) -> TaskPrompt:
        layout = ("instruction_first", "exemplars_first")[int(rng.integers(2))]
        exemplars = tuple(Exemplar(pool[row].input, pool[row].targets[0]) for row in chosen)
        return replace(initial, exemplars=exemplars, layout=layout)

    def search(prompts: Sequence[TaskPrompt], calls: int) -> TaskPrompt:
        """The winner of a halving; the first prompts are sure to take part."""
        gold = gold_indices(labels, [row.targets for row in dev])
        board: Board[Floats] = Board(
            lambda those, some: [list(each) for each in ask([prompts[c] for c in those], [dev[r] for r in some])[0]],
            len(dev),
            seed=seed,
        )

        def worth(candidate: int) -> float:
            table = np.array(board.results[candidate])
            return float(calibrated_logprob(table, gold[board.rows_of(candidate)]).mean())

        plan = plan_rounds(calls, len(dev), most=len(prompts))
        return prompts[halve(board, range(len(prompts)), plan, worth, incumbent=0)[0]]

    draw = Draw(pool, size, rng)
    plain = [initial, *(prompt_of(draw(np.zeros(len(pool)))) for _ in range(given.calls // ROWS))]
    found = {"random": search(plain, given.calls)}

    board_rows = [dev[row] for row in rng.permutation(len(dev))[:ROWS]]
    sets: list[list[int]] = []
    prompts: list[TaskPrompt] = []
    worths: list[float] = []
    scores, fit = np.zeros(len(pool)), 0.0
    for share in (FIRST, SECOND):
        new = [draw(scores) for _ in range(int(share * given.calls) // ROWS)]
        asked = [prompt_of(each) for each in new]
        table, gold = ask(asked, board_rows)
        graded = [float(calibrated_logprob(each, gold).mean()) for each in table]
        if sets:
            predicted = [scores[each].mean() for each in new]
            fit = float(np.corrcoef(predicted, graded)[0, 1]) if np.std(predicted) > 0 else 0.0
        sets, prompts, worths = sets + new, prompts + asked, worths + graded
        scores = SHARPNESS * learned(features, sets, worths)
    best = [prompts[number] for number in np.argsort(worths)[::-1][:ROWS]]
    rest = given.calls - ROWS * len(sets)
    found["policy"] = search([initial, *best, *(prompt_of(draw(scores)) for _ in range(rest // ROWS))], rest)
    table, gold = ask([initial, *found.values()], test)
    right = [((each - batch_offsets(each)).argmax(1) == gold).astype(int).tolist() for each in table]
    cell = {"data": name, "seed": seed, "calls": given.calls, "fit": fit}
    return cell | dict(zip(("initial", *found), right, strict=True))


class Draw:
    """Draws sets: labels in turn, within a label one row after the other by Plackett-Luce."""

    def __init__(self, pool: Sequence[RewriteExample], size: int, rng: np.random.Generator):
        self.size, self.rng = size, rng
        self.by_label: dict[str, list[int]] = {}
        for number, row in enumerate(pool):
            self.by_label.setdefault(row.targets[0], []).append(number)

    def __call__(self, scores: Floats) -> list[int]:
        """Numbers of rows, in the order in which they are shown; sorting by noisy scores is a Plackett-Luce draw."""
        noisy = scores + self.rng.gumbel(size=len(scores))
        queues = {label: sorted(rows, key=lambda row: noisy[row]) for label, rows in self.by_label.items()}
        names = [label for _ in range(self.size) for label in self.rng.permutation(sorted(queues))]
        chosen = [queues[label].pop() for label in names[: self.size]]
        return [int(row) for row in self.rng.permutation(chosen)]


@torch.inference_mode()
def features_of(model: HFTaskModel, pool: Sequence[RewriteExample]) -> Floats:
    """(row, feature), each feature with mean 0 and deviation 1."""
    states = []
    for row in pool:
        ids = torch.tensor([model.tokenizer(row.input)["input_ids"]])
        cache = model.trunk.new_cache(1, ids.shape[1])
        states.append(model.trunk(ids, torch.arange(ids.shape[1])[None], cache)[0].float().mean(0).numpy())
    centred = np.array(states, dtype=np.float64)
    centred = centred - centred.mean(0)
    components = np.linalg.svd(centred, full_matrices=False)[0][:, :COMPONENTS]
    likely = model.target_logprobs([f"{row.input}\n" for row in pool], [row.targets[0] for row in pool])
    found = np.column_stack([components, [len(row.input) for row in pool], likely])
    return (found - found.mean(0)) / found.std(0)


def learned(features: Floats, sets: Sequence[Sequence[int]], worths: Sequence[float]) -> Floats:
    """A score for each row, deviation 1, by ridge regression of worth on a set's mean features."""
    inputs = np.array([features[each].mean(0) for each in sets])
    inputs, targets = inputs - inputs.mean(0), np.array(worths) - np.mean(worths)
    best = np.zeros(features.shape[1])
    least = np.inf
    for ridge in (0.1, 1.0, 10.0, 100.0):
        inverse = np.linalg.inv(inputs.T @ inputs + ridge * np.eye(inputs.shape[1]))
        hat = inputs @ inverse @ inputs.T
        errors = (targets - hat @ targets) / (1 - np.diag(hat))
        if (error := float((errors**2).mean())) < least:
            least, best = error, inverse @ inputs.T @ targets
    scores = features @ best
    return scores / (scores.std() or 1.0)


def print_table(cells: Sequence[dict[str, Any]]) -> None:
    """Accuracy after batch calibration, data set by data set, and the mean difference with its interval."""
    print("| data | seed | calls | initial | random | policy | policy less random | fit |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for cell in cells:
        means = [float(np.mean(cell[name])) for name in ("initial", "random", "policy")]
        print(
            f"| {cell['data']} | {cell['seed']} | {cell['calls']:,} | "
            + " | ".join(f"{mean:.3f}" for mean in means)
            + f" | {100 * (means[2] - means[1]):+.1f} | {cell['fit']:+.2f} |"
        )
    names = sorted({cell["data"] for cell in cells})
    gains = {name: [np.mean(c["policy"]) - np.mean(c["random"]) for c in cells if c["data"] == name] for name in names}
    rng = np.random.default_rng(0)
    draws = [
        np.mean([np.mean(rng.choice(gains[name], len(gains[name]))) for name in rng.choice(names, len(names))])
        for _ in range(5000)
    ]
    mean, (low, high) = np.mean([np.mean(each) for each in gains.values()]), np.quantile(draws, (0.025, 0.975))
    interval = f"{100 * low:+.1f} to {100 * high:+.1f}"
    print(f"\nMean over data sets: {100 * mean:+.1f} points ({interval}, over drawn sets and seeds)")


if __name__ == "__main__":
    main()
