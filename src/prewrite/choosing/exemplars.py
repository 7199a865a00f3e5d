"""Labelled rows put into the prompt as examples."""

from __future__ import annotations

import random
from collections.abc import Sequence

from prewrite.errors import ConfigError
from prewrite.types import RewriteExample


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
