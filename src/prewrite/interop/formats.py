"""Prompts in the form that other tools read. A format is one function, and its line in `FORMATS`.

Braces, quotes and line ends of the prompt are written so that the other tool reads back the same text.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from prewrite.errors import ConfigError
from prewrite.files import to_json
from prewrite.interop.modelfile import modelfile
from prewrite.interop.promptfoo import promptfoo
from prewrite.interop.slots import Message, Written, messages_with_gaps
from prewrite.interop.templates import f_string, jinja_text
from prewrite.scoring.prompt import TaskPrompt

SLOT = "{input}"
"""Where the input goes, in the formats that have no slots of their own."""


def text(prompt: TaskPrompt, model: str) -> Written:
    """The text that the task model is sent, with `{input}` where the input goes."""
    return Written(_plain(_one_message(prompt, "text"), "text"))


def chat(prompt: TaskPrompt, model: str) -> Written:
    """Chat messages as JSON, with `{input}` where the input goes."""
    messages = [{"role": part.role, "content": _plain(part, "chat")} for part in messages_with_gaps(prompt)]
    return Written(json.dumps(messages, ensure_ascii=False, indent=2) + "\n")


def jinja(prompt: TaskPrompt, model: str) -> Written:
    """A Jinja template with the variable `input`."""
    return Written(jinja_text(_one_message(prompt, "jinja")))


def langchain(prompt: TaskPrompt, model: str) -> Written:
    """A `ChatPromptTemplate` with the variable `input`, as `langchain_core.load.loads` reads it."""
    kinds = {"user": "HumanMessagePromptTemplate", "assistant": "AIMessagePromptTemplate"}
    messages = []
    for part in messages_with_gaps(prompt):
        names = ["input"] if len(part.texts) > 1 else []
        told = {"input_variables": names, "template": f_string(part), "template_format": "f-string"}
        template = _constructor(["prompts", "prompt", "PromptTemplate"], told)
        messages.append(_constructor(["prompts", "chat", kinds[part.role]], {"prompt": template}))
    whole = {"input_variables": ["input"], "messages": messages}
    return Written(to_json(_constructor(["prompts", "chat", "ChatPromptTemplate"], whole), indent=2) + "\n")


def dspy(prompt: TaskPrompt, model: str) -> Written:
    """The state of a `dspy.Predict("input -> output")`, as its `load` reads it."""
    fields = [
        {"prefix": "Input:", "description": "${input}"},
        {"prefix": "Output:", "description": "${output}"},
    ]
    state: dict[str, Any] = {
        "traces": [],
        "train": [],
        "demos": [shown._asdict() for shown in prompt.exemplars],
        "signature": {"instructions": prompt.full_instruction, "fields": fields},
        "lm": None,
        "metadata": {"dependency_versions": {}},
    }
    return Written(
        to_json(state, indent=2) + "\n",
        ("DSPy puts instruction and examples together in its own way, so this is not the prompt that was measured",),
    )


class Format(NamedTuple):
    """How prompts are written for one tool."""

    write: Callable[[TaskPrompt, str], Written]
    """(prompt, task model as `BACKEND:MODEL` or empty) -> file content, and what it cannot say."""
    what: str


FORMATS = {
    "text": Format(text, "plain text"),
    "chat": Format(chat, "chat messages, JSON"),
    "jinja": Format(jinja, "Jinja template"),
    "promptfoo": Format(promptfoo, "promptfoo config, YAML"),
    "langchain": Format(langchain, "LangChain ChatPromptTemplate, JSON"),
    "dspy": Format(dspy, "state of a DSPy program, JSON"),
    "ollama": Format(modelfile, "Ollama Modelfile"),
}


def export(prompt: TaskPrompt, to: str, *, model: str = "") -> Written:
    """`prompt` in one of `FORMATS`.

    Args:
        prompt: what to write.
        to: the name of a format.
        model: the task model, for formats that name one.

    Raises `ConfigError` for an unknown format, and where the format cannot hold the prompt.
    """
    if to not in FORMATS:
        raise ConfigError(f"format {to!r} is unknown; choose one of {', '.join(FORMATS)}")
    written = FORMATS[to].write(prompt, model)
    if prompt.label_offsets is None:
        return written
    offsets = ", ".join(f"{label} {nats:+.2f}" for label, nats in prompt.label_offsets)
    lost = (
        f"the label offsets ({offsets}) are left out: they shift the scores of labels, which no text can do; without "
        "them the prompt answers differently from what was measured",
    )
    return written._replace(lost=lost + written.lost)


def _one_message(prompt: TaskPrompt, to: str) -> Message:
    if prompt.in_turns:
        raise ConfigError(
            f"the prompt shows its examples as turns of a conversation, which {to} cannot hold; export it to chat, "
            "promptfoo, langchain, dspy or ollama"
        )
    return messages_with_gaps(prompt)[0]


def _plain(message: Message, to: str) -> str:
    if any(SLOT in text for text in message.texts):
        raise ConfigError(
            f"the prompt itself says {SLOT}, which {to} could not tell from the place of the input; export it to "
            "jinja, langchain or promptfoo"
        )
    return SLOT.join(message.texts)


def _constructor(name: list[str], arguments: dict[str, Any]) -> dict[str, Any]:
    """How LangChain writes an object."""
    return {"lc": 1, "type": "constructor", "id": ["langchain", *name], "kwargs": arguments}
