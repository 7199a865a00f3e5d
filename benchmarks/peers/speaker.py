"""What the endpoint needs of a model, without anything heavy: `chat_model.py` has the real one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, get_args

Messages = Sequence[dict[str, str]]
"""`{"role": ..., "content": ...}`, as clients send them."""
Frame = Literal["chat", "bare"]
FRAMES: tuple[Frame, ...] = get_args(Frame)
"""How the task model reads messages: in its chat template, or as bare text. The proposer always chats."""


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


def rendered(model: Speaker, messages: Messages, frame: Frame) -> str:
    """Messages as the task model reads them; bare ones are joined by a blank line, without a word on who speaks."""
    if frame == "chat":
        return model.render(messages)
    return "\n\n".join(message["content"] for message in messages)
