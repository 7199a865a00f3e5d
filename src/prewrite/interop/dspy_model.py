"""A language model of DSPy as a task model, so that whatever asks a task model can ask it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dspy
import numpy as np
from numpy.typing import NDArray

from prewrite.errors import CapabilityError, TaskModelError
from prewrite.lm.tokens import bare_text
from prewrite.task_models.base import Capability
from prewrite.task_models.stream import Batch, NoAnswer, Replies, Reply
from prewrite.types import Prompt


class DSPyTaskModel:
    """Asks `lm` (a `dspy.LM`, or another `dspy.BaseLM`) for text, at temperature 0 unless answers are drawn."""

    capabilities: frozenset[Capability] = frozenset({"generate"})

    def __init__(self, lm: Any):
        self.lm = lm
        self.name = f"dspy:{lm.model}"
        settings = {name: value for name, value in sorted(lm.kwargs.items()) if "key" not in name}
        self.identity = f"{self.name} {settings}"

    def stream(self, batch: Batch) -> Replies:
        """Answers one by one. Raises `TaskModelError` where the model could not be asked."""
        if batch.method != "generate":
            raise CapabilityError(f"{self.name} answers in text alone; {batch.method} needs another task model")
        for row, prompt in enumerate(batch.prompts):
            more: dict[str, Any] = {"temperature": 0.0}
            if batch.sampling:
                drawn = batch.sampling[row]
                more = {"temperature": drawn.temperature, "rollout_id": drawn.seed}  # DSPy's cache goes by that number
            batch.sending(row, 0, 0)
            try:
                found = self.lm(bare_text(prompt), **more)
            except dspy.LMError as error:
                raise TaskModelError(f"{self.name} gave no answer ({error})") from error
            text = found[0].get("text") if found and isinstance(found[0], dict) else (found or [None])[0]
            yield row, Reply(NoAnswer("the language model sent no text") if text is None else str(text))

    def generate(self, prompts: Sequence[Prompt]) -> list[str]:
        """One answer per prompt; empty where the model sent no text."""
        replies = dict(self.stream(Batch("generate", tuple(prompts))))
        return [str(reply.value) if isinstance(reply.value, str) else "" for _, reply in sorted(replies.items())]

    def constrained(self, prompts: Sequence[Prompt], labels: Sequence[str]) -> list[str]:
        """Not offered."""
        raise self._cannot("constrained")

    def label_logprobs(self, prompts: Sequence[Prompt], labels: Sequence[str]) -> NDArray[np.float64]:
        """Not offered."""
        raise self._cannot("label_logprobs")

    def target_logprobs(self, prompts: Sequence[Prompt], targets: Sequence[str]) -> list[float]:
        """Not offered."""
        raise self._cannot("target_logprobs")

    def _cannot(self, method: str) -> CapabilityError:
        return CapabilityError(f"{self.name} answers in text alone; {method} needs another task model")
