"""Wordings of an instruction from a file: plain text, a DSPy program's state, a promptfoo config, or a prompt.json."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prewrite.errors import ConfigError
from prewrite.files import why_unreadable
from prewrite.text import is_valid_unicode, parse_json, parse_yaml


def read_wordings(file: str) -> list[str]:
    """The wordings in `file`: `.json`, `.yaml` and `.yml` by their kind, else one a line. Raises `ConfigError`."""
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"candidates {file!r} cannot be read as UTF-8 text ({why_unreadable(error)})") from None
    read, remedy = _READERS.get(Path(file).suffix.lower(), (_lines, "write one wording a line"))
    try:
        found = [wording.strip() for wording in read(text) if wording.strip()]
    except ValueError as error:
        raise ConfigError(f"candidates {file!r} cannot be read ({error}); {remedy}") from None
    if not found:
        raise ConfigError(f"candidates {file!r} holds no text; {remedy}")
    if not all(map(is_valid_unicode, found)):
        raise ConfigError(f"candidates {file!r} holds half of a surrogate pair; write it again as valid Unicode")
    return list(dict.fromkeys(found))


def _lines(text: str) -> Iterator[str]:
    yield from text.splitlines()


def _json(text: str) -> Iterator[str]:
    """The instruction of every predictor of a DSPy program, or of a prompt.json."""
    state = parse_json(text)
    if not isinstance(state, dict):
        raise ValueError(f"it holds a {type(state).__name__}, not an object")
    for part in (state, *state.values()):
        if isinstance(part, dict):
            signature = part.get("signature")
            holders = [part, signature] if isinstance(signature, dict) else [part]
            yield from (
                holder[name]
                for holder in holders
                for name in ("instruction", "instructions")
                if isinstance(holder.get(name), str)
            )


def _promptfoo(text: str) -> Iterator[str]:
    """What every prompt of a promptfoo config says ahead of the first line with a variable."""
    config = parse_yaml(text)
    prompts = config.get("prompts") if isinstance(config, dict) else None
    for prompt in prompts if isinstance(prompts, list) else [prompts]:
        raw = prompt.get("raw") if isinstance(prompt, dict) else prompt
        if isinstance(raw, str) and re.match(r"file://|\S+\.\w+$", raw):
            raise ValueError(f"prompt {raw!r} is in another file")
        if isinstance(raw, str):
            yield _ahead_of_variables(_first_message(raw))


def _first_message(raw: str) -> str:
    """What the first of chat messages says; a prompt that is none as it is."""
    try:
        messages: Any = parse_json(raw)
        return str(messages[0]["content"])
    except (ValueError, LookupError, TypeError):
        return raw


def _ahead_of_variables(template: str) -> str:
    # An export writes braces that are text as values; a NUL behind each keeps two of them from looking like a tag.
    text = re.sub(r'\{\{ "(\{|#)" \}\}', r"\1\0", template)
    lines = []
    for line in text.split("\n"):
        if "{{" in line:
            break
        lines.append(line)
    return "\n".join(lines).replace("\0", "")


_READERS: dict[str, tuple[Callable[[str], Iterator[str]], str]] = {
    ".json": (_json, "give the state of a DSPy program (program.save) or a prompt.json"),
    ".yaml": (_promptfoo, "give a promptfoo config whose prompts stand in it"),
    ".yml": (_promptfoo, "give a promptfoo config whose prompts stand in it"),
}
