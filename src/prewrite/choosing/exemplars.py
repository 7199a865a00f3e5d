"""Sets of exemplars to try, drawn from training rows.

No dev or test row can get in: the only rows that this module sees are those of the training split.
"""

from __future__ import annotations

import random
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


def _short_enough(rows: Sequence[RewriteExample]) -> list[RewriteExample]:
    """The rows without the longest ones."""
    lengths = np.array([len(row.input) for row in rows])
    limit = np.quantile(lengths, 1 - LONGEST_SHARE) if len(rows) else 0
    return [row for row, length in zip(rows, lengths, strict=True) if length <= limit]


def few_shot_instruction(instruction: str, examples: Sequence[RewriteExample], shots: int, *, seed: int = 0) -> str:
    """`instruction` followed by `shots` random training rows: the baseline that an optimised instruction must beat.

    Labels take turns, so that few shots cover many labels. Raises `ConfigError` where `examples` has too few rows.
    """
    if not 0 < shots <= len(examples):
        raise ConfigError(f"{shots} exemplars asked for, {len(examples)} training rows there; choose 1 to that many")
    rng = random.Random(seed)
    by_label: dict[str, list[RewriteExample]] = {}
    for example in rng.sample(list(examples), len(examples)):
        by_label.setdefault(example.targets[0] if example.choices else "", []).append(example)
    queues = list(by_label.values())
    chosen: list[RewriteExample] = []
    while len(chosen) < shots:
        for queue in queues:
            if queue and len(chosen) < shots:
                chosen.append(queue.pop())
    rng.shuffle(chosen)
    shown = "\n\n".join(f"{example.input}\n{example.targets[0]}" for example in chosen)
    return f"{instruction}\n\n{shown}"
