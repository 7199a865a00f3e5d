"""Fidelity: how much of the initial instruction can be told from the rewrite alone.

A small judge model reads the rewrite and is asked what the task is; what counts is how likely it finds the initial
instruction as the answer. With `lp(x)` the judge's mean log-probability per token of the instruction after reading x:

    fidelity(rewrite) = (lp(rewrite) - lp(nothing)) / (lp(instruction) - lp(nothing)),  clipped to [0, 1]

1: as recoverable as from the instruction itself. 0: no better than from nothing. This is the share of the pointwise
mutual information between instruction and rewrite. It catches what word lists cannot ("Write a negative review for
each category" for a sentiment task), and it has a blind side: an honest rewrite in wholly other words scores about
0.3 with a judge of 135M parameters (docs/readability.md has the figures). So it is a floor, not a target.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from prewrite.errors import TaskModelError
from prewrite.task_models.base import TaskModel
from prewrite.text import shown

PROMPT = "Task description: {text}\n\nThe task is to:"
NOTHING = "Answer."
"""What stands for a rewrite that tells nothing."""


class Judge(Protocol):
    """The part of a task model that fidelity needs."""

    def target_logprobs(self, prompts: Sequence[str], targets: Sequence[str]) -> Sequence[float]:
        """Mean log-probability per token of each target after its prompt, in nats."""
        ...


def open_judge(name: str, task_model: TaskModel | None = None) -> Fidelity:
    """Fidelity by the model of this name: a folder, a hub id, or `embedded`.

    It shares the weights of `task_model` where both are the same model. Its questions are no task-model calls. Raises
    `ModelNotFoundError`.
    """
    from prewrite.lm.embedded import resolve_model
    from prewrite.task_models.hf import HFTaskModel
    from prewrite.task_models.stream import unwrapping

    folder, backend = resolve_model(name), None
    if task_model is not None:
        *_, backend = unwrapping(task_model)
    if isinstance(backend, HFTaskModel) and not backend.chat and backend.source == folder:
        return Fidelity(backend)
    return Fidelity(HFTaskModel(name))


class Fidelity:
    """Fidelity of rewrites, each text judged once.

    What the judge said stays, because a judge in bf16 says something slightly else about a text in other company:
    a run that goes on from a checkpoint takes over what it had heard.

    Args:
        judge: any model with target log-probabilities; the same judge for figures that are compared.
    """

    def __init__(self, judge: Judge):
        self.judge = judge
        self._logprobs: dict[tuple[str, str], float] = {}

    def __call__(self, rewrites: Sequence[str], instruction: str) -> list[float]:
        """One number in [0, 1] per rewrite, in order; 0 for an empty one."""
        texts = list(dict.fromkeys([NOTHING, instruction, *(rewrite for rewrite in rewrites if rewrite.strip())]))
        fresh = [text for text in texts if (text, instruction) not in self._logprobs]
        if fresh:
            prompts = [PROMPT.format(text=text) for text in fresh]
            found = self.judge.target_logprobs(prompts, [f" {instruction}"] * len(fresh))
            if not all(map(math.isfinite, found)):
                raise TaskModelError(
                    f"the judge of fidelity gave {shown(instruction)} a log-probability that is not finite; choose "
                    "another --fidelity-model, or none"
                )
            self._logprobs |= {(text, instruction): value for text, value in zip(fresh, found, strict=True)}
        nothing, itself = self._logprobs[NOTHING, instruction], self._logprobs[instruction, instruction]
        if itself <= nothing:  # an instruction that tells nothing about itself asks nothing of its rewrites
            return [float(bool(rewrite.strip())) for rewrite in rewrites]
        return [
            min(1.0, max(0.0, (self._logprobs[rewrite, instruction] - nothing) / (itself - nothing)))
            if rewrite.strip()
            else 0.0
            for rewrite in rewrites
        ]

    def state(self) -> dict[str, dict[str, float]]:
        """What the judge has said, by instruction and text; JSON types, for a checkpoint."""
        said: dict[str, dict[str, float]] = {}
        for (text, instruction), logprob in self._logprobs.items():
            said.setdefault(instruction, {})[text] = logprob
        return said

    def restore(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """Remember what `state` told, and nothing else."""
        self._logprobs = {(text, name): value for name, said in state.items() for text, value in said.items()}
