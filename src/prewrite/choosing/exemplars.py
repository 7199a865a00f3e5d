"""Sets of exemplars to try, drawn from training rows.

No dev or test row can get in: the only rows that this module sees are those of the training split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from prewrite.errors import ConfigError
from prewrite.scoring.prompt import Exemplar
from prewrite.types import RewriteExample

MOST_MEASURED = 1000
"""Rows whose tokens are counted where a prompt may have only so many: enough to draw from, and soon counted."""
MOST_SHOWN = 16
"""Exemplars of the largest set."""
LONGEST_SHARE = 0.1
"""Of the training rows, the longest ones that are not shown: each input of a run would pay for them."""


def set_sizes(labels: int) -> list[int]:
    """How many exemplars a set may have, by the number of labels (0 for open answers): each label once or twice.

    Of many labels a set shows some: 77 exemplars were no better than 16 and took three times as long (docs/log.md).

    >>> set_sizes(2), set_sizes(4), set_sizes(7), set_sizes(77), set_sizes(0)
    ([2, 4, 8], [4, 8], [7], [8, 16], [2, 4, 8])
    """
    if labels <= 2:
        return [2, 4, 8]
    if labels > MOST_SHOWN:
        return [MOST_SHOWN // 2, MOST_SHOWN]
    return [labels, 2 * labels] if labels <= 5 else [labels]


class Pool(NamedTuple):
    """The rows that sets of one size are drawn from."""

    size: int
    rows: Sequence[RewriteExample]


def pools_of(rows: Sequence[RewriteExample], sizes: Sequence[int]) -> list[Pool]:
    """All but the longest rows for every size that they give many different sets of."""
    short = _short_enough(rows)
    return [Pool(size, short) for size in sizes if size <= len(rows) // 2]


def fitting_pools(
    rows: Sequence[RewriteExample], sizes: Sequence[int], *, room: int, cost: Callable[[Exemplar], int], seed: int
) -> list[Pool]:
    """For every size, rows so short that each set of them takes `room` tokens at most.

    Where too few rows are that short, or a label has none, there is no pool of that size; where that is so for all
    sizes, there is one of the largest smaller size that fits. `cost` is what an exemplar takes at most.
    """
    if not rows:
        return []
    order = np.random.default_rng([seed, *b"measured"]).permutation(len(rows))[:MOST_MEASURED]
    measured = [rows[index] for index in np.sort(order)]
    costs = [cost(_exemplar(row)) for row in measured]
    labels = Counter(map(_label, measured))

    def pool(size: int) -> Pool | None:
        short = [row for row, tokens in zip(measured, costs, strict=True) if tokens * size <= room]
        have, each = Counter(map(_label, short)), max(1, size // len(labels))
        enough = len(short) >= 2 * size and all(have[label] >= min(each, labels[label]) for label in labels)
        return Pool(size, short) if enough else None

    found = [fitting for size in sizes if (fitting := pool(size))]
    smaller = (fitting for size in range(min(sizes, default=1) - 1, 0, -1) if (fitting := pool(size)))
    return found or [fitting for fitting in [next(smaller, None)] if fitting]


def random_sets(pools: Sequence[Pool], count: int, *, seed: int) -> list[tuple[Exemplar, ...]]:
    """`count` sets, the pools in turn; labels are as even in a set as its size allows, in random order.

    Random sets of the same size differ by 5 to 15 points of accuracy, so trying many is worth more than drawing one
    with care. Raises `ConfigError` for a pool of fewer rows than its sets hold.
    """
    by_labels: list[dict[str, list[int]]] = []
    for size, rows in pools:
        if size > len(rows):
            raise ConfigError(
                f"sets of {size} exemplars need as many training rows, and there are {len(rows)}; give more training "
                "rows"
            )
        by_labels.append({})
        for index, row in enumerate(rows):
            by_labels[-1].setdefault(_label(row), []).append(index)
    rng = np.random.default_rng([seed, *b"exemplars"])
    found = []
    for number in range(count):
        (size, rows), by_label = pools[number % len(pools)], by_labels[number % len(pools)]
        queues = [list(rng.permutation(by_label[label])) for label in rng.permutation(sorted(by_label))]
        chosen: list[int] = []
        while len(chosen) < size:
            for queue in queues:
                if queue and len(chosen) < size:
                    chosen.append(int(queue.pop()))
        found.append(tuple(_exemplar(rows[index]) for index in rng.permutation(chosen)))
    return found


def random_set(rows: Sequence[RewriteExample], size: int, *, seed: int) -> tuple[Exemplar, ...]:
    """One set as `random_sets` draws it; of fewer rows than `size`, all but the longest."""
    short = _short_enough(rows)
    return random_sets([Pool(min(size, len(short)), short)], 1, seed=seed)[0]


def _exemplar(row: RewriteExample) -> Exemplar:
    return Exemplar(row.input, row.targets[0])


def _label(row: RewriteExample) -> str:
    """The label of a row; one for all open answers."""
    return row.targets[0] if row.choices else ""


def _short_enough(rows: Sequence[RewriteExample]) -> list[RewriteExample]:
    """The rows without the longest ones."""
    lengths = np.array([len(row.input) for row in rows])
    limit = np.quantile(lengths, 1 - LONGEST_SHARE) if len(rows) else 0
    return [row for row, length in zip(rows, lengths, strict=True) if length <= limit]
