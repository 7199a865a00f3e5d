"""What the endpoint needs of a model, without anything heavy: `chat_model.py` has the real one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

Messages = Sequence[dict[str, str]]
"""`{"role": ..., "content": ...}`, as clients send them."""


class Written(NamedTuple):
    """One answer and its length."""

    text: str
    tokens: int


class Speaker(Protocol):
    """What an endpoint needs of a model; tests bring one that is scripted."""

    context: float

    def render(self, messages: Messages) -> str:
        """The messages as the model reads them."""
        ...

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of rendered prompts."""
        ...

    def answers(
        self, prompts: Sequence[str], *, limit: int, temperature: float, seeds: Sequence[int]
    ) -> list[Written]:
        """One answer of at most `limit` tokens per rendered prompt; `seeds` decide samples, 0 degrees is greedy."""
        ...
