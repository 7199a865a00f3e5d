"""The rewriter as a chat model of OpenAI's API: the user's last message is an instruction, the reply its rewrite.

Only what changes a rewrite is read: `n`, `temperature` (0 or none: the likeliest rewrite first; else samples, at the
rewriter's own temperature), `seed` and `stream`. What it cannot do is refused, not ignored.
"""

from __future__ import annotations

import json
import random
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prewrite.errors import ConfigError
from prewrite.serve.writer import Writer
from prewrite.text import is_valid_unicode

MOST_CHOICES = 16
MOST_CHARACTERS = 8_000
"""Of an instruction."""
IGNORED = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls",
           "max_tokens", "max_completion_tokens"}  # fmt: skip
"""About the service, not about the reply; and how long that may be, which the rewriter's own limit decides."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "top_p": (1,), "presence_penalty": (0,), "frequency_penalty": (0,), "logprobs": (False,), "tools": ([],),
    "response_format": ({"type": "text"},), "modalities": (["text"],), "stop": ([],), "logit_bias": ({},),
}  # fmt: skip
"""Fields that are refused unless they ask for nothing; null asks for nothing anywhere."""
READ = {"model", "messages", "n", "temperature", "seed", "stream", "stream_options"}


@dataclass(frozen=True)
class Asked:
    """A request for rewrites."""

    instruction: str
    count: int
    sampled: bool
    """All choices are samples; else the first one is the likeliest rewrite."""
    seed: int
    stream: bool
    usage: bool
    """Whether a stream ends with the tokens used."""


def read_chat(body: dict[str, Any]) -> Asked:
    """The request in a body. Raises `ConfigError` that names the field."""
    for name, value in body.items():
        known = name in READ or name in IGNORED or value is None or value in NEUTRAL.get(name, ())
        if not known:
            raise ConfigError(f"{name} is {shown_json(value)}; a rewriter cannot do that, leave it out")
    count, seed = _whole(body, "n", 1, 1, MOST_CHOICES), _whole(body, "seed", None, -(2**63), 2**63 - 1)
    temperature = body.get("temperature")
    if temperature is not None and not (_is_number(temperature) and 0 <= temperature <= 2):
        raise ConfigError(f"temperature is {shown_json(temperature)}; it must be a number from 0 to 2")
    stream = body.get("stream")
    if stream not in (None, True, False):
        raise ConfigError(f"stream is {shown_json(stream)}; it must be true or false")
    options = body.get("stream_options") or {}
    return Asked(
        _instruction(body.get("messages")),
        count,
        bool(temperature),
        random.getrandbits(31) if seed is None else seed % 2**31,
        bool(stream),
        isinstance(options, dict) and options.get("include_usage") is True,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(body: dict[str, Any], name: str, default: Any, least: int, most: int) -> Any:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigError(f"{name} is {shown_json(value)}; it must be a whole number from {least} to {most}")
    return value


def shown_json(value: Any) -> str:
    """A value of a request, cut short."""
    return json.dumps(value)[:80]  # ASCII, so that nothing in it is more than text


def _instruction(messages: Any) -> str:
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ConfigError("messages must be a list of objects with role and content")
    content = next((message.get("content") for message in reversed(messages) if message.get("role") == "user"), None)
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "\n".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise ConfigError("messages has no text of the user; the instruction to rewrite is the last one's content")
    return checked_instruction(content)


def checked_instruction(text: Any) -> str:
    """An instruction that may be rewritten. Raises `ConfigError`."""
    if not isinstance(text, str) or not text.strip() or not is_valid_unicode(text):
        raise ConfigError("the instruction is empty, or no valid text; give what is to be rewritten")
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(f"the instruction has {len(text):,} characters; at most {MOST_CHARACTERS:,} are taken")
    return text.strip()


def rewrites(writer: Writer, asked: Asked) -> list[str]:
    """The choices, in order; one that the rewriter left empty is the instruction itself."""
    first = [] if asked.sampled else [writer.greedy(asked.instruction)]
    more = asked.count - len(first)
    texts = first + (writer.sample_rewrites(asked.instruction, more, seed=asked.seed) if more else [])
    return [text if text.strip() else asked.instruction for text in texts]


def _head(writer: Writer, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": writer.name,
    }  # fmt: skip


def _usage(writer: Writer, asked: Asked, texts: list[str]) -> dict[str, int]:
    read, wrote = writer.count_tokens(asked.instruction), sum(map(writer.count_tokens, texts))
    return {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}


def completion(writer: Writer, asked: Asked, texts: list[str]) -> dict[str, Any]:
    """The reply as one object."""
    choices = [
        {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": None}
        for index, text in enumerate(texts)
    ]
    return {**_head(writer, "chat.completion"), "choices": choices, "usage": _usage(writer, asked, texts)}


def chunks(writer: Writer, asked: Asked, texts: list[str]) -> Iterator[dict[str, Any]]:
    """The reply as a stream of objects, a word at a time."""
    head = _head(writer, "chat.completion.chunk")
    for index, text in enumerate(texts):
        deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": word} for word in re.findall(r"\s*\S+\s*?", text)]
        for delta in deltas:
            yield {**head, "choices": [{"index": index, "delta": delta, "finish_reason": None}]}
        yield {**head, "choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]}
    if asked.usage:
        yield {**head, "choices": [], "usage": _usage(writer, asked, texts)}
