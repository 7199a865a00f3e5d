"""Labels as servers give them: a JSON schema that allows nothing else, and scores among the likeliest next tokens."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np

from prewrite.errors import TaskModelError

_FENCED = re.compile(r"\s*```\w*\n(.*)\n```\s*", re.DOTALL)


def label_schema(labels: Sequence[str]) -> dict[str, Any]:
    """JSON schema of `{"label": one of labels}`, accepted by Ollama's `format` and OpenAI's `json_schema`."""
    return {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": list(labels)}},
        "required": ["label"],
        "additionalProperties": False,
    }


def label_tokens(labels: Sequence[str]) -> int:
    """Output limit with room for the longest label in its JSON object: a token per byte, escapes, white space."""
    return 32 + max(len(json.dumps(label).encode()) for label in labels)


def label_in(text: str, labels: Sequence[str]) -> str | None:
    """The label in a server's JSON `{"label": ...}`; None if there is none, so the server did not keep the schema."""
    fenced = _FENCED.fullmatch(text)
    try:
        label = json.loads(fenced[1] if fenced else text)["label"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    return label if isinstance(label, str) and label in labels else None


def top_tokens(entries: Sequence[Any]) -> list[tuple[str, float]]:
    """(token, log-probability) of what a server shows as a token's alternatives; a null counts as absent."""
    shown = [(entry.get("token"), entry.get("logprob")) for entry in entries]
    return [(token, float(logprob)) for token, logprob in shown if isinstance(token, str) and is_number(logprob)]


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def scores_from_top(top: Sequence[tuple[str, float]], labels: Sequence[str], prompt: str) -> tuple[float, ...]:
    """Log-probability of each label among the likeliest next tokens, with or without a leading space.

    A label that is not there gets the lowest value shown, the most it can have: the order among found labels and of
    found before missing ones is right, the size of a missing one is not. Raises `TaskModelError` if none is there.
    """
    found = {label: [logprob for token, logprob in top if token.strip() == label.strip()] for label in labels}
    if not any(found.values()):
        raise TaskModelError(
            f"none of the labels {list(labels)} is among the {len(top)} likeliest next tokens after the prompt that "
            f"ends in {prompt[-60:]!r}, so it cannot be scored; use decoding 'constrained', or labels of one token"
        )
    floor = min(logprob for _, logprob in top)
    return tuple(float(np.logaddexp.reduce(found[label])) if found[label] else floor for label in labels)
