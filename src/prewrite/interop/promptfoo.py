"""A prompt as a config of promptfoo, a command-line tool that runs prompts on test cases."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from prewrite.interop.slots import Written, messages_with_gaps
from prewrite.interop.templates import jinja_text
from prewrite.scoring.prompt import TaskPrompt
from prewrite.task_models.registry import parse_task_model

ECHO = "echo"
"""promptfoo's provider that answers with the prompt."""


def promptfoo(prompt: TaskPrompt, model: str) -> Written:
    """A config with the prompt, the task model where promptfoo can reach it, and one test case to replace."""
    messages = messages_with_gaps(prompt)
    if len(messages) == 1 and not messages[0].texts[0].lstrip().startswith(("[", "{")):  # else taken for messages
        raw = jinja_text(messages[0])
    else:
        raw = json.dumps([{"role": part.role, "content": jinja_text(part)} for part in messages], ensure_ascii=False)
    provider = provider_of(model)
    config = {
        "description": _Text("A prompt found by prewrite"),
        "prompts": [{"label": _Text("prewrite"), "raw": _Text(raw)}],
        "providers": [provider],
        "tests": [{"vars": {"input": _Text("Put an input of yours here.")}}],
    }
    lost = ["the test case is a placeholder; put inputs of yours under tests"]
    if provider == ECHO:
        of = f"promptfoo cannot reach {model}" if model else "no task model is known"
        lost.append(f"{of}, so the provider is echo, which answers with the prompt; name yours under providers")
    text: str = yaml.dump(config, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=10**6)
    return Written(text, tuple(lost))


def provider_of(model: str) -> Any:
    """What promptfoo calls the task model; `ECHO` for one that runs in this process or is not known.

    >>> provider_of("ollama:gemma3:4b"), provider_of("hf:embedded")
    ('ollama:chat:gemma3:4b', 'echo')
    """
    spec = parse_task_model(model) if model else None
    if spec is None or spec.backend not in ("ollama", "openai"):
        return ECHO
    name, place = f"{spec.backend}:chat:{spec.model}", "apiBaseUrl"
    return {"id": _Text(name), "config": {place: _Text(spec.address)}} if spec.address else name


class _Text(str):
    """A value that is written as a block or in quotes: YAML versions differ in which bare words are text."""


class _Dumper(yaml.SafeDumper):
    """Writes `_Text` so that every YAML reader takes it for text."""


def _text_node(dumper: yaml.SafeDumper, text: _Text) -> yaml.ScalarNode:
    block = "\n" in text and not re.search("[\x85\u2028\u2029]", text)  # to YAML 1.1 these end a line of a block too
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|" if block else '"')


_Dumper.add_representer(_Text, _text_node)
