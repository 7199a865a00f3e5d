"""The contract between the package and everything that can answer a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from prewrite.types import Prompt

Method = Literal["generate", "label_logprobs", "target_logprobs", "constrained"]
"""How a task model is asked."""
Capability = Literal[Method, "turns"]
"""What a task model can do: the methods that work, and `turns` where a prompt may be a `Conversation`."""


class TaskModel(Protocol):
    """A frozen model that answers task prompts. A wrapper (cache, retry, budget) is a `TaskModel` too.

    A prompt is plain text, or a conversation where the model takes turns; a backend applies its model's chat template
    itself, if it is set to. All prompts of an update come in one call, prompts of one rewrite side by side, so that an
    engine can batch them and share prefixes.
    Decoding is greedy. Every method raises `TaskModelError` when the machinery fails; a failure is never an answer.
    """

    @property
    def name(self) -> str:
        """Backend and exact model, e.g. `hf:SmolLM2-135M-Instruct`; what configs and reports call it."""
        ...

    @property
    def identity(self) -> str:
        """What answers depend on: name, weights digest or version, dtype, decoding settings. Keys the cache."""
        ...

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The methods below that work, and whether prompts may be in turns; asked before a run starts."""
        ...

    def generate(self, prompts: Sequence[Prompt]) -> list[str]:
        """One greedy output per prompt, in order."""
        ...

    def constrained(self, prompts: Sequence[Prompt], labels: Sequence[str]) -> list[str]:
        """One of `labels` per prompt, by the backend's own structured output, in order."""
        ...

    def label_logprobs(self, prompts: Sequence[Prompt], labels: Sequence[str]) -> NDArray[np.float64]:
        """Natural-log probability of each label after each prompt, summed over label tokens; (prompt, label)."""
        ...

    def target_logprobs(self, prompts: Sequence[Prompt], targets: Sequence[str]) -> list[float]:
        """Mean natural-log probability per token of each target after its prompt; len(prompts) == len(targets)."""
        ...
