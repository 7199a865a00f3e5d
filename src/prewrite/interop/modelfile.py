"""A prompt as a Modelfile, from which `ollama create` makes a model that has the prompt in it."""

from __future__ import annotations

import re

from prewrite.errors import ConfigError
from prewrite.interop.slots import Written
from prewrite.scoring.prompt import TaskPrompt
from prewrite.task_models.registry import parse_task_model
from prewrite.text import shown


def modelfile(prompt: TaskPrompt, model: str) -> Written:
    """The instruction as the system message, and the exemplars as earlier turns.

    Raises `ConfigError` where no model of Ollama is named, and for text that a Modelfile cannot hold.
    """
    spec = parse_task_model(model) if model else None
    if spec is None or spec.backend != "ollama" or re.search(r"\s", spec.model):
        raise ConfigError(
            f"a Modelfile is made from a model of Ollama, and the task model is {model or 'not known'}; name one, as "
            "in --model ollama:gemma3:4b"
        )
    lines = [f"FROM {spec.model}", f"SYSTEM {_quoted(prompt.full_instruction)}"]
    for exemplar in prompt.exemplars:
        lines += [f"MESSAGE user {_quoted(exemplar.input)}", f"MESSAGE assistant {_quoted(exemplar.output)}"]
    lost = [
        "Ollama gets the instruction as system message and each example as an earlier turn, without the template, so "
        "this is not the prompt that was measured"
    ]
    texts = [prompt.full_instruction, *(text for exemplar in prompt.exemplars for text in exemplar)]
    if dropped := sorted({char for char in "".join(texts) if not printed(char)}):
        names = ", ".join(f"U+{ord(char):04X}" for char in dropped)
        lost.append(f"Ollama drops characters that are not printed: {names}")
    return Written("\n".join(lines) + "\n", tuple(lost))


def printed(text: str) -> str:
    """What Ollama keeps of a text."""
    return "".join(char for char in text if char.isprintable() or char in "\t\n\r")


def _quoted(text: str) -> str:
    '''`text` between `"""`. Ollama takes a line that ends in them for the end, and knows no escapes.'''
    if re.search(r'"""[ \t]*[\r\n]', printed(text)):
        raise ConfigError(
            f'the prompt has a line that ends in """, which a Modelfile cannot hold: {shown(text)}; export it to '
            "another format"
        )
    return f'"""{text}"""'
