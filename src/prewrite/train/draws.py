"""What an update draws: its instructions, and the examples that their rewrites are graded on.

Every draw depends on the seed, the update and the instruction alone. So a resumed run draws what a straight one draws,
and all algorithms see the same instructions and examples at the same update.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prewrite.data import PRewriteDataset
from prewrite.train.mixture import Mixture
from prewrite.types import RewriteExample


def step_rng(purpose: str, *, seed: int, step: int, process: int = 0) -> np.random.Generator:
    """A generator that depends on its arguments alone."""
    return np.random.default_rng([seed, step, process, *purpose.encode()])


def draw_instructions(mixture: Mixture, count: int, *, seed: int, step: int) -> list[str]:
    """`count` distinct instructions of this step, by their weights; the same on every process."""
    rng = step_rng("instructions", seed=seed, step=step)
    names = list(mixture.rows)
    return [names[int(index)] for index in rng.choice(len(names), size=count, replace=False, p=mixture.weights)]


def draw_examples(
    rows: PRewriteDataset, count: int, *, seed: int, step: int, instruction: str, others: bool = False
) -> list[RewriteExample]:
    """Up to `count` of an instruction's rows, the same on every process; `others`: as many of the rest.

    Labels come in the shares that they have in `rows`, as nearly as `count` allows (systematic sampling over the rows
    sorted by label): eight rows drawn freely can hold one label five times, and then the reward follows the draw.
    """
    rng = np.random.default_rng([seed, step, *instruction.encode()])
    order = rng.permutation(len(rows))
    order = order[np.argsort(rows.label_codes()[order], kind="stable")]
    drawn = _systematic(order, count, rng)
    if others:
        drawn = _systematic(order[~np.isin(order, drawn)], count, rng)
    return [rows[int(index)] for index in rng.permutation(drawn)]


def _systematic(order: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`count` entries (or all) at even distances from a random start."""
    if len(order) <= count:
        return order
    places = (np.arange(count) + rng.random()) * (len(order) / count)
    return order[places.astype(np.int64)]
