"""Numbers that are not finite, and updates that teach nothing: what is left out, and what ends training.

| what is found | what happens |
| --- | --- |
| a gradient that is not finite | its optimiser step is left out, and counted as `update/skipped` in `metrics.jsonl` |
| such a step in each of `MOST_SKIPPED` updates in a row | training ends, with a checkpoint |
| no rewrite in any completion of `MOST_EMPTY` updates in a row | training ends, with a checkpoint |
| a log-probability, a reward or a weight that is not finite | training ends; the last checkpoint is sound |

Whatever ends training is a `TrainingError` that names the update and the cause.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch

from prewrite.errors import TrainingError
from prewrite.text import shown

MOST_SKIPPED = 3
"""Updates in a row of which a step was left out. One may be chance; three are a run that diverges."""
MOST_EMPTY = 3
"""Updates in a row without a rewrite. Such rewrites all earn the same, so nothing leads out of there."""
_REMEDY = "begin another run with a lower --learning-rate, or with a higher --kl-coef"


class Health:
    """What was found in the updates so far."""

    def __init__(self) -> None:
        self.skipped = 0
        """Optimiser steps of the running update that were left out."""
        self._skipped_in_a_row = 0
        self._empty_in_a_row = 0

    def state(self) -> dict[str, int]:
        """Plain numbers for a checkpoint, so that a run that is stopped in between ends where it would have ended."""
        return {"skipped_in_a_row": self._skipped_in_a_row, "empty_in_a_row": self._empty_in_a_row}

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from what `state` told."""
        self._skipped_in_a_row, self._empty_in_a_row = state["skipped_in_a_row"], state["empty_in_a_row"]

    def drop_bad_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> bool:
        """Take the gradients away where one is not finite, so that the step changes nothing; whether it was so."""
        found = [parameter for parameter in parameters if parameter.grad is not None]
        if all(bool(parameter.grad.isfinite().all()) for parameter in found):
            return False
        for parameter in found:
            parameter.grad = None
        self.skipped += 1
        return True

    def finish_update(self, step: int, parameters: Iterable[torch.nn.Parameter]) -> dict[str, float]:
        """The metrics of the update, where there is something to tell. Raises for a weight that is not finite."""
        if not all(bool(parameter.isfinite().all()) for parameter in parameters):
            raise TrainingError(f"update {step} made weights of the rewriter that are not finite; {_REMEDY}")
        skipped, self.skipped = self.skipped, 0
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
        return {"update/skipped": float(skipped)} if skipped else {}

    def why_end(self, step: int, rows: Sequence[Mapping[str, object]]) -> str | None:
        """Why training must end after this update, whose rollouts are `rows`; None where it goes on."""
        empty = not any(row["rewrite"] for row in rows)
        self._empty_in_a_row = self._empty_in_a_row + 1 if empty else 0
        if self._skipped_in_a_row >= MOST_SKIPPED:
            return (
                f"a gradient was not finite in each of the last {MOST_SKIPPED} updates, up to update {step}, and such "
                f"steps are left out, so nothing was learned; {_REMEDY}"
            )
        if self._empty_in_a_row >= MOST_EMPTY:
            return (
                f"the rewriter wrote no rewrite in the last {MOST_EMPTY} updates, up to update {step}: a completion "
                f"is {shown(str(rows[0]['completion']))}; {_REMEDY}"
            )
        return None


def check_logprobs(step: int, **logprobs: torch.Tensor) -> None:
    """Raise `TrainingError` for a log-probability that is not finite; the names say whose they are."""
    for whose, values in logprobs.items():
        if not bool(values.isfinite().all()):
            raise TrainingError(
                f"update {step}: a log-probability of the {whose} is not finite, so its model computes no numbers any "
                f"more; {_REMEDY}, or with another base model"
            )


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics without those that a step that was left out has spoiled: no number is not written as one."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
