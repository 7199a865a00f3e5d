"""A task model from a Python function: for tests, examples, and rewriting against any scorer of your own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from prewrite.lm.tokens import bare_text
from prewrite.task_models.base import Capability
from prewrite.types import Prompt

LabelScorer = Callable[[str, Sequence[str]], Sequence[float]]


class ScriptedTaskModel:
    """Answers with `answer(prompt)`; scores labels with `label_scores(prompt, labels)` if that is given.

    Without `label_scores`, the label that `answer` returns gets log-probability 0 and every other one -10.
    """

    capabilities: frozenset[Capability] = frozenset({"generate", "constrained", "label_logprobs"})

    def __init__(
        self, answer: Callable[[str], str], *, label_scores: LabelScorer | None = None, name: str = "scripted"
    ):
        self.answer = answer
        self.label_scores = label_scores
        self.name = name
        self.identity = name

    def generate(self, prompts: Sequence[Prompt]) -> list[str]:
        """`answer` of each prompt, in order."""
        return [self.answer(bare_text(prompt)) for prompt in prompts]

    def constrained(self, prompts: Sequence[Prompt], labels: Sequence[str]) -> list[str]:
        """`answer` of each prompt where that is a label, else the first label."""
        outputs = self.generate(prompts)
        return [output if output in labels else labels[0] for output in outputs]

    def label_logprobs(self, prompts: Sequence[Prompt], labels: Sequence[str]) -> NDArray[np.float64]:
        """See the class docstring; (prompt, label)."""
        if self.label_scores is not None:
            return np.array([self.label_scores(bare_text(prompt), labels) for prompt in prompts], dtype=np.float64)
        outputs = self.generate(prompts)
        return np.array([[0.0 if label == output else -10.0 for label in labels] for output in outputs])

    def target_logprobs(self, prompts: Sequence[Prompt], targets: Sequence[str]) -> list[float]:
        """0 where the answer is the target, -10 elsewhere."""
        outputs = self.generate(prompts)
        return [0.0 if output == target else -10.0 for output, target in zip(outputs, targets, strict=True)]
