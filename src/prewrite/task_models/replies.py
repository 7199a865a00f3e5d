"""What a server's reply says: the text of an answer, its tokens, an error, or why there is no answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prewrite.task_models.labels import is_number
from prewrite.task_models.retry import AttemptFailed
from prewrite.task_models.stream import NoAnswer
from prewrite.task_models.thoughts import spoken

# Why an answer ended, in the words of the servers in use.
_CUT = re.compile(r"length|max_\w*tokens|token_limit|context_window")
_FILTERED = re.compile(r"filter|safety|toxic|recitation|blocklist|prohibited|spii|refusal|sensitive|guardrail|moderat")
_BROKEN = re.compile(r"error|abort|cancel|overloaded|insufficient|time_?out|time_limit")
_OF_A_TOOL = re.compile(r"tool|function")

_STATUS_OF = {
    "insufficient_quota": 402, "billing_hard_limit_reached": 402, "insufficient_balance": 402,
    "rate_limit_exceeded": 429, "rate_limit_error": 429, "overloaded_error": 503, "unavailable_error": 503,
    "timeout": 408, "context_length_exceeded": 400, "exceed_context_size_error": 400, "string_above_max_length": 400,
    "content_filter": 400, "content_policy_violation": 400, "invalid_prompt": 400, "invalid_request_error": 400,
    "badrequesterror": 400, "invalid_api_key": 401, "authentication_error": 401, "permission_error": 403,
    "model_not_found": 404, "not_found_error": 404, "notfounderror": 404,
}  # fmt: skip
"""The HTTP status that an error's own code or type stands for."""


class ServerError(NamedTuple):
    """What a server says went wrong."""

    status: int
    words: str
    code: str = ""
    """The server's own name for it, in lower case."""
    parameter: str = ""
    """The request's field that it is about, where the server names one."""


def is_cut(finish: Any) -> bool:
    """Whether an answer ended because there was no room for more."""
    return _CUT.search(_reason(finish)) is not None


def is_filtered(finish: Any) -> bool:
    """Whether a content filter ended an answer."""
    return _FILTERED.search(_reason(finish)) is not None


def text_of(
    content: Any, *, limit: int, finish: Any = None, refusal: Any = None, thoughts: Any = None
) -> str | NoAnswer:
    """The text of an answer without thoughts, or why there is none.

    `content` is text, a list of parts of which the text ones count, or None. `finish` says why it ended, `thoughts`
    is what the server set apart as thinking, `limit` the most tokens that could be written. Raises `AttemptFailed`
    for an answer that broke off, or whose content is of another type.
    """
    text, part_thoughts, part_refusal = _joined(content)
    ended, cut = _reason(finish), is_cut(finish)
    if refusal := refusal or part_refusal:
        return NoAnswer(f"the model refused: {_start(str(refusal))}")
    if is_filtered(finish):
        return NoAnswer(f"the server's content filter stopped it (finish_reason {ended})")
    if _BROKEN.search(ended):
        raise AttemptFailed(f"the answer broke off (finish_reason {ended})", billed=True)
    answer, tagged = spoken(text)
    thought = bool(thoughts) or part_thoughts or tagged
    if answer is None or (thought and not answer.strip()):
        if cut or answer is None:
            return NoAnswer(f"ran out of its {limit} tokens while thinking; raise max_new_tokens")
        return NoAnswer("it thought and then wrote no answer")
    if cut and not answer.strip():
        return NoAnswer(f"ran out of its {limit} tokens before it wrote anything; raise max_new_tokens")
    if content is None or (_OF_A_TOOL.search(ended) and not answer.strip()):
        return NoAnswer("the server sent no text" + (f" (finish_reason {ended})" if ended else ""))
    return answer


def tokens_of(usage: Any) -> tuple[int | None, int | None]:
    """(input, output) tokens as the server counted them; None for what it does not tell.

    A prompt has at least one token, so zeros mean that nothing was counted.
    """
    if not isinstance(usage, Mapping):
        return None, None
    read = _count(usage, "prompt_tokens", "input_tokens")
    written = _count(usage, "completion_tokens", "output_tokens")
    return read or None, written if read or written else None


def error_in(body: Any) -> ServerError | None:
    """The error that a body holds, whatever the HTTP status said: gateways find out too late to change that."""
    if isinstance(body, str):
        body = _events(body)
    if isinstance(body, list):
        return next(filter(None, map(error_in, body)), None)
    if not isinstance(body, Mapping):
        return None
    told: Any = body.get("error") or (body.get("success") is False and body.get("errors"))
    if isinstance(told, list):
        told = told[0] if told else None
    choices = body.get("choices")
    if told is True or (not told and (body.get("object") == "error" or (not choices and _status_of(body)))):
        told = {name: value for name, value in body.items() if name != "error"}
    if not told and isinstance(choices, list):
        told = next((choice["error"] for choice in choices if isinstance(choice, Mapping) and choice.get("error")), "")
    if not told:
        return None
    if not isinstance(told, Mapping):
        return ServerError(500, _start(str(told), 300))
    named = [told.get(field) for field in _STATUS_FIELDS]
    code = next((name.lower() for name in named if isinstance(name, str) and not name.isdigit()), "")
    return ServerError(
        _status_of(told) or 500, words_in(told) or json.dumps(dict(told))[:300], code, str(told.get("param") or "")
    )


def words_in(body: Any) -> str:
    """What a server says, in one line of at most 300 characters."""
    if isinstance(body, Mapping):
        for field in ("message", "error", "detail", "msg", "errors", "error_msg", "status_msg", "base_resp"):
            if (found := body.get(field)) and (text := words_in(found)):
                raw = body.get("metadata", {}).get("raw") if isinstance(body.get("metadata"), Mapping) else None
                return _start(f"{text} ({raw})" if raw else text, 300)
        return ""
    if isinstance(body, Sequence) and not isinstance(body, str | bytes):
        return _start("; ".join(filter(None, map(_detail, body))), 300)
    text = str(body)
    if "<html" in text[:500].lower():
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        text = title[1] if title else re.sub(r"<[^>]*>", " ", text)
    return _start(text, 300)


def _detail(item: Any) -> str:
    """FastAPI's {"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}, or what else there is."""
    if isinstance(item, Mapping) and isinstance(item.get("loc"), list):
        return f"{'.'.join(map(str, item['loc']))}: {item.get('msg', '')}"
    return words_in(item)


def _joined(content: Any) -> tuple[str, bool, str]:
    """The text of all text parts, whether another part holds thoughts, and what a part says in refusal."""
    if content is None:
        return "", False, ""
    if isinstance(content, str):
        return content, False, ""
    if not isinstance(content, list):
        raise AttemptFailed(f"the answer's content is {_start(str(content))}, not text", billed=True)
    texts, thought, refusal = [], False, ""
    for part in content:
        fields = part if isinstance(part, Mapping) else {"text": part}
        kind, text = str(fields.get("type") or "text"), fields.get("text")
        if re.search("think|thought|reason", kind) or fields.get("thought"):
            thought = True
        elif kind == "refusal":
            refusal = str(fields.get("refusal") or text)
        elif kind in ("text", "output_text") and isinstance(text, str):
            texts.append(text)
        else:
            raise AttemptFailed(f"the answer has a part that is no text: {_start(str(part))}", billed=True)
    return "".join(texts), thought, refusal


def _reason(finish: Any) -> str:
    """Why an answer ended, in lower case with underscores; some servers send an object with a type."""
    told = finish.get("type") if isinstance(finish, Mapping) else finish
    return re.sub("[ -]", "_", str(told or "").lower())


def _count(usage: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = usage.get(name)
        if is_number(value) and value >= 0 and value == int(value):
            return int(value)
    return None


_STATUS_FIELDS = ("code", "status", "status_code", "http_code", "type")


def _status_of(told: Mapping[str, Any]) -> int | None:
    """The status that one of its fields stands for."""
    return next((found for field in _STATUS_FIELDS if (found := _status(told.get(field))) is not None), None)


def _status(name: Any) -> int | None:
    if isinstance(name, int) or (isinstance(name, str) and name.isdigit()):
        return int(name) if 400 <= int(name) <= 599 else None
    return _STATUS_OF.get(name.lower()) if isinstance(name, str) else None


def _events(body: str) -> list[Any]:
    """The JSON of server-sent events, or of lines of JSON."""
    found = []
    for line in body.splitlines():
        line = line.strip().removeprefix("data:").strip()
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except (ValueError, RecursionError):
                return found  # the rest was cut off
    return found


def _start(text: str, length: int = 120) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 3] + "..."
