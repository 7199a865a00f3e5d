"""One batch of questions, answered one by one: how backends and wrappers talk among themselves.

A backend whose answers arrive over time, and every wrapper, has `stream(batch)`, which yields `(row, reply)` as each
answer comes in, in any order. So a cache can keep each answer the moment it exists, and a budget sees every attempt
before it is sent. A backend without `stream` is asked in slices of its plain methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from prewrite.errors import CapabilityError, NoAnswerError, TaskModelError
from prewrite.task_models.base import Capability, Method, TaskModel
from prewrite.task_models.labels import is_number
from prewrite.task_models.thoughts import spoken
from prewrite.task_models.token_counts import token_bound
from prewrite.types import Conversation, Prompt

Value = str | tuple[float, ...] | float
"""Text for `generate` and `constrained`, one number per label for `label_logprobs`, one for `target_logprobs`."""

SLICE = 256
"""Prompts that a backend without `stream` is asked at once: large enough to batch well, small enough to lose."""


def _ignore(*_: object) -> None:
    """The hook of a batch that nobody watches."""


class Sampling(NamedTuple):
    """How an answer is drawn that is not greedy; the names are those of the servers."""

    temperature: float
    seed: int


@dataclass(frozen=True, slots=True)
class Batch:
    """The questions of one call of a task model."""

    method: Method
    prompts: tuple[Prompt, ...]
    labels: tuple[str, ...] = ()
    """For `constrained` and `label_logprobs`: the same labels for every prompt."""
    targets: tuple[str, ...] = ()
    """For `target_logprobs`: one text per prompt."""
    sampling: tuple[Sampling, ...] = ()
    """For `generate` on a server: how each prompt's answer is drawn. Without it answers are greedy, as a task model's
    always are; drawn ones are not cached."""
    sending: Callable[[int, int, int], None] = _ignore
    """Called as (row, most input tokens, most output tokens) before every attempt, retries too; may raise to stop."""
    failed: Callable[[int, bool], None] = _ignore
    """Called as (row, may have been billed) after an attempt that gave no answer."""

    def rows(self, rows: Sequence[int]) -> Batch:
        """The questions at `rows`, with hooks that speak of the rows of this batch."""
        at = tuple(rows)
        return replace(
            self,
            prompts=tuple(self.prompts[row] for row in at),
            targets=tuple(self.targets[row] for row in at) if self.targets else (),
            sampling=tuple(self.sampling[row] for row in at) if self.sampling else (),
            sending=lambda row, tokens_in, tokens_out: self.sending(at[row], tokens_in, tokens_out),
            failed=lambda row, billed: self.failed(at[row], billed),
        )


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """In place of an answer: the model or its server gave none. It is counted, never cached, and never a score."""

    reason: str
    """What happened to this prompt, and the remedy where there is one; no full stop at its end."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, or none, and what it took as far as the backend tells."""

    value: Value | NoAnswer
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached: bool = False
    known_model: bool = True
    """False where the server says that another configuration than the first one answered; not to be cached."""
    more: bool = False
    """True where answers of the same computation follow at once: they are kept all together or not at all. In bf16 an
    answer depends on what else was computed with it, so after a stop whole such groups are asked again."""


Replies = Generator[tuple[int, Reply], None, None]
"""(row, reply) as they arrive; closing it stops what is still under way."""


@runtime_checkable
class Streaming(Protocol):
    """A task model that yields its answers as they arrive."""

    def stream(self, batch: Batch) -> Replies:
        """Every row of `batch` once, in any order."""
        ...


@runtime_checkable
class TokenCounter(Protocol):
    """A task model without `stream` that can tell how many tokens it read and wrote."""

    def prompt_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """Tokens of each prompt as the model reads it, special tokens and chat template included."""
        ...

    def text_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text that follows a prompt."""
        ...


def stream(task_model: TaskModel, batch: Batch) -> Replies:
    """Answers of any task model as they arrive. Raises `CapabilityError` before asking what it cannot do."""
    require(task_model, batch)
    if isinstance(task_model, Streaming):
        yield from task_model.stream(batch)
        return
    if batch.sampling:
        raise CapabilityError(f"{task_model.name} answers greedily; only models on servers are sampled from")
    writes = getattr(task_model, "max_new_tokens", 0) if batch.method in ("generate", "constrained") else 0
    for start in range(0, len(batch.prompts), SLICE):
        rows = range(start, min(start + SLICE, len(batch.prompts)))
        for row in rows:
            asked = batch.targets[row : row + 1] or batch.labels
            batch.sending(row, token_bound(batch.prompts[row], *asked), writes)
        replies = _ask_each(task_model, batch.rows(rows))
        for row, reply in zip(rows, replies, strict=True):
            yield row, replace(reply, more=row < rows[-1])


def require(task_model: TaskModel, batch: Batch) -> None:
    """Raise `CapabilityError` if `task_model` cannot answer `batch`: it lacks the method, or takes no turns."""
    can = task_model.capabilities
    if batch.method not in can:
        raise CapabilityError(f"{cannot(task_model, batch.method)}; choose another decoding")
    if "turns" not in can and any(isinstance(prompt, Conversation) for prompt in batch.prompts):
        raise CapabilityError(f"{cannot(task_model, 'turns')}; choose another layout")


def cannot(task_model: TaskModel, capability: Capability) -> str:
    """That `task_model` lacks a capability, why where its backend says so, and what it can do."""
    *_, backend = unwrapping(task_model)
    reason = backend.why_not(capability) if hasattr(backend, "why_not") else ""
    can = ", ".join(sorted(task_model.capabilities)) or "nothing"
    return f"{task_model.name} cannot do {capability!r} (it can do: {can})" + (f": {reason}" if reason else "")


def no_answer(name: str, prompts: Sequence[Prompt], row: int, reason: str) -> NoAnswerError:
    """The error for a prompt to which the task model `name` gave no answer."""
    begins = " ".join(str(prompts[row])[:100].split())
    return NoAnswerError(
        f"{name} gave no answer to prompt {row + 1} of {len(prompts)}, {begins!r}: {reason}", row=row, reason=reason
    )


def is_answer(value: object, batch: Batch) -> bool:
    """Whether `value` can be an answer to a question of `batch`: text, one of its labels, or finite numbers."""
    if batch.method in ("generate", "constrained"):
        return isinstance(value, str) and (batch.method == "generate" or value in batch.labels)
    if batch.method == "target_logprobs":
        return is_number(value)
    return isinstance(value, tuple) and len(value) == len(batch.labels) and all(map(is_number, value))


def _ask_each(task_model: TaskModel, batch: Batch) -> list[Reply]:
    """Every reply. A prompt that the model does not take is left out, and the others are asked without it."""
    replies: dict[int, Reply] = {}
    rows = list(range(len(batch.prompts)))
    while rows:
        try:
            found = _ask(task_model, batch.rows(rows))
        except NoAnswerError as error:
            replies[rows.pop(error.row)] = Reply(NoAnswer(error.reason), 0, 0)
        else:
            return [reply for _, reply in sorted([*replies.items(), *zip(rows, found, strict=True)])]
    return [replies[row] for row in range(len(batch.prompts))]


def _ask(task_model: TaskModel, batch: Batch) -> list[Reply]:
    values: list[Value]
    if batch.method == "generate":
        values = list(task_model.generate(batch.prompts))
    elif batch.method == "constrained":
        values = list(task_model.constrained(batch.prompts, batch.labels))
    elif batch.method == "label_logprobs":
        scores = task_model.label_logprobs(batch.prompts, batch.labels)
        values = [tuple(row) for row in np.asarray(scores).tolist()]
    else:
        values = list(task_model.target_logprobs(batch.prompts, batch.targets))
    if len(values) != len(batch.prompts):
        raise TaskModelError(
            f"{task_model.name} gave {len(values)} answers to {len(batch.prompts)} prompts; it must answer each once"
        )
    heard = [_heard(value) for value in values] if batch.method == "generate" else values
    if not isinstance(task_model, TokenCounter):
        return [Reply(value) for value in heard]
    read, written = task_model.prompt_tokens(batch.prompts), [0] * len(values)
    if batch.method in ("generate", "constrained"):
        written = task_model.text_tokens([_text(value) for value in values])
    else:  # scored texts are read: every label after every prompt, or each prompt's own target
        every = sum(task_model.text_tokens(batch.labels))
        own = task_model.text_tokens(batch.targets) or [every] * len(values)
        read = [prompt + scored for prompt, scored in zip(read, own, strict=True)]
    return [Reply(*reply) for reply in zip(heard, read, written, strict=True)]


def _heard(value: Value) -> Value | NoAnswer:
    """What a model that thinks aloud said beside its thoughts."""
    text, thought = spoken(_text(value))
    if text is None or (thought and not text):
        return NoAnswer("ran out of tokens while thinking; raise max_new_tokens")
    return text


class StreamedTaskModel(ABC):
    """The methods of `TaskModel`, given `stream`."""

    name: str
    identity: str

    @property
    @abstractmethod
    def capabilities(self) -> frozenset[Capability]:
        """See `TaskModel.capabilities`."""

    @abstractmethod
    def stream(self, batch: Batch) -> Replies:
        """Every row of `batch` once, in any order, as the answers arrive."""

    def load(self) -> None:  # noqa: B027  # nothing to do unless there is
        """Do what the first batch would have to wait for."""

    def generate(self, prompts: Sequence[Prompt]) -> list[str]:
        """See `TaskModel.generate`."""
        return [_text(value) for value in self._collect(Batch("generate", tuple(prompts)))]

    def constrained(self, prompts: Sequence[Prompt], labels: Sequence[str]) -> list[str]:
        """See `TaskModel.constrained`."""
        return [_text(value) for value in self._collect(Batch("constrained", tuple(prompts), labels=tuple(labels)))]

    def label_logprobs(self, prompts: Sequence[Prompt], labels: Sequence[str]) -> NDArray[np.float64]:
        """See `TaskModel.label_logprobs`; (prompt, label)."""
        rows = self._collect(Batch("label_logprobs", tuple(prompts), labels=tuple(labels)))
        return np.array(rows, dtype=np.float64).reshape(len(prompts), len(labels))

    def target_logprobs(self, prompts: Sequence[Prompt], targets: Sequence[str]) -> list[float]:
        """See `TaskModel.target_logprobs`."""
        batch = Batch("target_logprobs", tuple(prompts), targets=tuple(targets))
        return [float(value) for value in self._collect(batch)]  # type: ignore[arg-type]

    def _collect(self, batch: Batch) -> list[Value]:
        require(self, batch)
        values: dict[int, Value] = {}
        with closing(self.stream(batch)) as replies:
            for row, reply in replies:
                if isinstance(reply.value, NoAnswer):
                    raise no_answer(self.name, batch.prompts, row, reply.value.reason)
                values[row] = reply.value
        if len(values) != len(batch.prompts):
            raise TaskModelError(f"{self.name} answered {len(values)} of {len(batch.prompts)} prompts")
        return [values[row] for row in range(len(batch.prompts))]


class Wrapper(StreamedTaskModel):
    """A task model around another one: same name, identity and capabilities."""

    def __init__(self, inner: TaskModel):
        self.inner = inner

    @property
    def name(self) -> str:  # type: ignore[override]
        """The wrapped backend's name."""
        return self.inner.name

    @property
    def identity(self) -> str:  # type: ignore[override]
        """The wrapped backend's identity: a wrapper changes no answer."""
        return self.inner.identity

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The wrapped backend's capabilities."""
        return self.inner.capabilities


def unwrapping(task_model: TaskModel) -> Generator[TaskModel, None, None]:
    """The task model's wrappers from the outermost in, then the backend."""
    yield task_model
    while isinstance(task_model, Wrapper):
        task_model = task_model.inner
        yield task_model


def backend_notes(task_model: TaskModel) -> list[str]:
    """What the backend says that a reader of the results should know of it."""
    *_, backend = unwrapping(task_model)
    return list(getattr(backend, "notes", []))


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise TaskModelError(f"expected text from the task model, got {value!r}")
    return value
