"""The nouns of the package. This file imports nothing of ours, so every other file may import it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

Task = Literal["classification", "qa", "math"]
TASKS: tuple[str, ...] = get_args(Task)

Decoding = Literal["likelihood", "constrained", "generate"]
DECODINGS: tuple[str, ...] = get_args(Decoding)

Role = Literal["user", "assistant"]


class Turn(NamedTuple):
    """What one side says in a conversation."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A prompt for a model that was tuned to chat: earlier turns, and the user's last one, which it answers."""

    turns: tuple[Turn, ...]

    def __str__(self) -> str:
        """The turns as people read them; no model is sent this."""
        return "\n\n".join(f"{turn.role.capitalize()}: {turn.text}" for turn in self.turns)


Prompt = str | Conversation
"""What a task model is sent. A chat model takes a text as one message of the user."""


def turns_of(prompt: Prompt) -> tuple[Turn, ...]:
    """The turns of a prompt; a text is one turn of the user."""
    return (Turn("user", prompt),) if isinstance(prompt, str) else prompt.turns


def messages_of(prompt: Prompt) -> list[dict[str, str]]:
    """The prompt as chat messages, in the form that chat templates and servers take."""
    return [{"role": turn.role, "content": turn.text} for turn in turns_of(prompt)]


def kind_of_task(task: Task | None, choices: Sequence[str] | None) -> Task | None:
    """The kind of task of a row: one with labels to choose from is classification, whether it says so or not.

    The answer is one of the labels, so it is read, graded and stratified as a label. Raises `ValueError` for a row
    with labels that calls itself something else.
    """
    if not choices:
        return task
    if task not in (None, "classification"):
        raise ValueError(f"task is {task!r} for a row with choices; such a row is classification")
    return "classification"


@dataclass(frozen=True, slots=True)
class RewriteExample:
    """One labelled row: what the task model is asked, and what counts as right."""

    instruction: str
    """The text the user brought; what gets rewritten."""
    input: str
    output: str | tuple[str, ...]
    """The gold answer, or several accepted ones."""
    task: Task | None = None
    """Picks metric and decoding; see `kind_of_task` for a row with `choices`."""
    template: str | None = None
    """Overrides the meta prompt for this row's instruction; see `meta_prompts.build_meta_prompt`."""
    choices: tuple[str, ...] | None = None
    """The labels, in a fixed order; None where the task is not classification."""
    place: str = field(default="", compare=False, repr=False)
    """Where the row stands, for messages: `rows.jsonl, row 17`. Rows that differ in nothing else are equal."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", kind_of_task(self.task, self.choices))

    @property
    def targets(self) -> tuple[str, ...]:
        """The accepted gold answers, at least one."""
        return (self.output,) if isinstance(self.output, str) else self.output


@dataclass(frozen=True, slots=True)
class Answer:
    """What the task model said to one input under one rewrite, and how it was graded."""

    prompt: str
    output: str
    """The raw text, or the chosen label under `likelihood` and `constrained` decoding."""
    prediction: str
    """What is graded: the part of `output` that the parser took for the answer."""
    score: float
    """From the metric, in [0, 1]; higher is better. NaN where there is no answer."""
    label_logprobs: tuple[float, ...] | None = None
    """One natural-log probability per `RewriteExample.choices`, where the backend scored labels."""
    no_answer: str = ""
    """Why there is none, for a row that is left out of every comparison; its score is NaN."""


@dataclass(frozen=True, slots=True)
class Reward:
    """What one rewrite earns, part by part, each logged under its own name."""

    total: float
    """The sum of `parts`, of which all penalties together count at most twice the weight of one guard."""
    parts: Mapping[str, float]
