"""A prompt as messages with a gap where the input goes, which every format writes in its own way."""

from __future__ import annotations

from typing import NamedTuple

from prewrite.scoring.prompt import TaskPrompt
from prewrite.types import Role, turns_of


class Message(NamedTuple):
    """One message; the input stands between each two of `texts`, and nowhere where there is one text."""

    role: Role
    texts: tuple[str, ...]


class Written(NamedTuple):
    """A prompt in another tool's form."""

    text: str
    """What the file holds."""
    lost: tuple[str, ...] = ()
    """What the form cannot say, or the reader has to see to; a sentence each, without its full stop."""


def messages_with_gaps(prompt: TaskPrompt) -> list[Message]:
    """What the task model is sent, cut where the input goes. One message of the user unless the prompt is in turns."""
    mark = "\ue000"  # of the private use area; the text of no language has it
    while any(mark in text for text in _texts(prompt)):
        mark += "\ue000"
    return [Message(turn.role, tuple(turn.text.split(mark))) for turn in turns_of(prompt.sent(mark))]


def _texts(prompt: TaskPrompt) -> list[str]:
    return [prompt.template, prompt.full_instruction, *(text for shown in prompt.exemplars for text in shown)]
