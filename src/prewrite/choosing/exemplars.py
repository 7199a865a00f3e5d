"""Sets of exemplars to try, drawn from training rows.

No dev or test row can get in: the only rows that this module sees are those of the training split.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prewrite.errors import ConfigError
from prewrite.scoring.prompt import Exemplar
from prewrite.types import RewriteExample

LONGEST_SHARE = 0.1
"""Of the training rows, the longest ones that are not shown: each input of a run would pay for them."""


def set_sizes(labels: int) -> list[int]:
    """How many exemplars a set may have, by the number of labels (0 for open answers): each label once or twice.

    >>> set_sizes(2), set_sizes(4), set_sizes(7), set_sizes(0)
    ([2, 4, 8], [4, 8], [7], [2, 4, 8])
    """
    if labels <= 2:
        return [2, 4, 8]
    return [labels, 2 * labels] if labels <= 5 else [labels]


def random_sets(
    rows: Sequence[RewriteExample], sizes: Sequence[int], count: int, *, seed: int
) -> list[tuple[Exemplar, ...]]:
    """`count` sets, their sizes in turn; labels are as even in a set as its size allows, in random order.

    Random sets of the same size differ by 5 to 15 points of accuracy, so trying many is worth more than drawing one
    with care. Raises `ConfigError` where there are fewer rows than the largest set holds.
    """
    pool = _short_enough(rows)
    if not sizes or max(sizes) > len(pool):
        raise ConfigError(
            f"sets of up to {max(sizes, default=0)} exemplars need as many training rows, and there are {len(pool)}; "
            "give more training rows"
        )
    by_label: dict[str, list[int]] = {}
    for index, row in enumerate(pool):
        by_label.setdefault(row.targets[0] if row.choices else "", []).append(index)
    rng = np.random.default_rng([seed, *b"exemplars"])
    found = []
    for number in range(count):
        queues = [list(rng.permutation(by_label[label])) for label in rng.permutation(sorted(by_label))]
        chosen: list[int] = []
        while len(chosen) < sizes[number % len(sizes)]:
            for queue in queues:
                if queue and len(chosen) < sizes[number % len(sizes)]:
                    chosen.append(int(queue.pop()))
        found.append(tuple(Exemplar(pool[i].input, pool[i].targets[0]) for i in rng.permutation(chosen)))
    return found


def random_set(rows: Sequence[RewriteExample], size: int, *, seed: int) -> tuple[Exemplar, ...]:
    """One set as `random_sets` draws it; of fewer rows than `size`, all but the longest."""
    return random_sets(rows, [min(size, len(_short_enough(rows)))], 1, seed=seed)[0]


def _short_enough(rows: Sequence[RewriteExample]) -> list[RewriteExample]:
    """The rows without the longest ones."""
    lengths = np.array([len(row.input) for row in rows])
    limit = np.quantile(lengths, 1 - LONGEST_SHARE) if len(rows) else 0
    return [row for row, length in zip(rows, lengths, strict=True) if length <= limit]
