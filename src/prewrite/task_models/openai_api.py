"""The endpoints of an OpenAI-compatible server, how it is asked and read, and what it tells of its model."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prewrite.errors import TaskModelError
from prewrite.lm.tokens import bare_text
from prewrite.task_models.labels import label_schema, top_tokens
from prewrite.task_models.replies import is_cut, is_filtered, text_of, words_in
from prewrite.task_models.retry import AttemptFailed
from prewrite.task_models.server import Connection
from prewrite.task_models.stream import NoAnswer
from prewrite.types import Prompt, messages_of

Body = Mapping[str, Any]
Told = Mapping[str, Any]
"""What a server tells of its model, by the endpoint that tells it; JSON types."""

_PASSING = frozenset(
    {"object", "permission", "permissions", "status", "state", "loaded", "last_used", "active", "pricing",
     "description", "progress", "total_slots", "is_sleeping", "ready", "owned_by_user"}
)  # fmt: skip
"""Fields of a listed model that change while the model stays."""
_PROPERTIES = ("model_path", "model_alias", "build_info", "chat_template", "bos_token", "eos_token", "modalities")
"""llama.cpp's /props, less what depends on the load."""
_A_VERSION = re.compile(r"b\d+-|v?\d+\.\d+")
"""How a `system_fingerprint` begins that is the server's version."""
_NOW_SECONDS = 60
"""A time stamp this close to now is that of the request, as vLLM and llama.cpp give for `created`."""


class Stamp(NamedTuple):
    """What a reply says of the model that wrote it."""

    model: str | None = None
    fingerprint: str | None = None

    @classmethod
    def of(cls, body: Body) -> Stamp:
        """The stamp of a reply; None for what it does not say."""
        texts = (body.get(name) for name in ("model", "system_fingerprint"))
        return cls(*(text if isinstance(text, str) and text else None for text in texts))

    def differs(self, other: Stamp) -> str:
        """How `other` contradicts this one, in words; empty if it does not."""
        for name, mine, theirs in zip(("model", "system_fingerprint"), self, other, strict=True):
            if mine and theirs and mine != theirs:
                return f"{name} {mine!r} became {theirs!r}"
        return ""


class OpenAIApi:
    """One model on one server; `address` usually ends in /v1, and `root` is what comes before that."""

    def __init__(self, connection: Connection, model: str):
        self.connection, self.model, self.address = connection, model, connection.address
        self.root = self.address.removesuffix("/v1")

    async def complete(self, client: Any, prompts: Sequence[str | list[int]], fields: Body) -> Body:
        """POST /completions; the answer, its choices one per prompt and in order."""
        prompt = list(prompts) if len(prompts) > 1 else prompts[0]
        body = {"model": self.model, "prompt": prompt, **fields}
        answer = await self._post(client, f"{self.address}/completions", body)
        choices = _choices(answer)
        if len(choices) > 1:
            choices = sorted(choices, key=lambda choice: choice.get("index", 0))
        if len(choices) != len(prompts):
            raise AttemptFailed(f"{len(prompts)} prompts got {len(choices)} choices: {_words(answer)}", billed=True)
        return {**answer, "choices": choices}

    async def talk(self, client: Any, prompt: Prompt, fields: Body) -> Body:
        """POST /chat/completions with a user message or a conversation; the answer, with exactly one choice."""
        body = {"model": self.model, "messages": messages_of(prompt), **fields}
        answer = await self._post(client, f"{self.address}/chat/completions", body)
        choices = _choices(answer)
        if len(choices) != 1:
            raise AttemptFailed(f"one prompt got {len(choices)} choices: {_words(answer)}", billed=True)
        ended = choices[0].get("finish_reason")
        if choices[0].get("message") is None and (is_filtered(ended) or is_cut(ended)):
            choices = [{**choices[0], "message": {}}]  # Azure's content filter leaves it out
        if not isinstance(choices[0].get("message"), dict):
            raise AttemptFailed(f"the choice has no message: {_words(answer)}", billed=True)
        return {**answer, "choices": choices}

    async def tokenize(self, client: Any, prompt: Prompt, *, chat: bool = False) -> list[int]:
        """Token ids by vLLM: of bare text without special tokens, or of a prompt in the chat template."""
        body: dict[str, Any] = {"model": self.model}
        if chat:
            body |= {"messages": messages_of(prompt), "add_generation_prompt": True}
        else:
            body |= {"prompt": bare_text(prompt), "add_special_tokens": False}
        told = await self._post(client, f"{self.root}/tokenize", body)
        if not isinstance(told.get("tokens"), list):
            raise AttemptFailed(f"POST /tokenize gave {str(told)[:80]!r}", billed=False)
        return [int(token) for token in told["tokens"]]

    async def models(self, client: Any) -> list[Body] | None:
        """The listed models; None where the server lists none."""
        told = await self._told(client, f"{self.address}/models")
        listed = told.get("data") if isinstance(told, dict) else None
        return [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else None

    async def about_model(self, client: Any, only: Sequence[str] | None = None) -> Told:
        """What /models, /props and /version tell of this model; `only` asks a part of them."""
        told: dict[str, Any] = {}
        if only is None or "models" in only:
            listed = await self.models(client) or []
            named = [entry for entry in listed if self.model in (entry.get("id"), *(entry.get("aliases") or ()))]
            if entry := next(iter(named or listed[:1])) if named or len(listed) == 1 else None:
                told["models"] = _lasting(entry)
        if only is None or "props" in only:
            found = await self._told(client, f"{self.root}/props")
            if isinstance(found, dict) and (kept := {name: found[name] for name in _PROPERTIES if found.get(name)}):
                template = kept.pop("chat_template", None)
                told["props"] = kept | ({"chat_template": _digest(template)} if template else {})
        if only is None or "version" in only:
            found = await self._told(client, f"{self.root}/version")
            if isinstance(found, dict) and found.get("version"):
                told["version"] = str(found["version"])
        return told

    async def _told(self, client: Any, url: str) -> Any:
        """What a GET tells; None where the server has no such page, or one of another kind."""
        try:
            return await self.connection.fetch(client, url)
        except TaskModelError:  # also a key that may ask the model, but not list it
            return None
        except AttemptFailed as error:
            if error.loading or error.status is None:
                raise
            return None

    async def _post(self, client: Any, url: str, body: Body) -> dict[str, Any]:
        answer = await self.connection.fetch(client, url, body)
        if not isinstance(answer, dict):
            raise AttemptFailed(f"the answer is {str(answer)[:60]!r}, not an object", billed=True)
        return answer


def model_is_known(told: Told, stamp: Stamp, model: str) -> bool:
    """Whether the server tells enough of its model for another one behind the same name to be noticed.

    Some servers give their own version as the fingerprint (`2.0.1-native`, `b6123-0a1b2c3`, `fp_ollama`), or the
    model's name: that says nothing of the weights.
    """
    fingerprint = stamp.fingerprint or ""
    own = fingerprint in ("", model, stamp.model, "fp_ollama") or _A_VERSION.match(fingerprint)
    listed = {name for name in told.get("models", {}) if name not in ("id", "owned_by", "aliases", "created")}
    return bool(listed or told.get("props") or not own or (stamp.model and stamp.model != model))


def identity_of(told: Told, stamp: Stamp) -> str:
    """What the server tells of its model, short enough for a cache key's list."""
    parts = [told.get("version"), stamp.model, stamp.fingerprint]
    return "|".join([*(str(part) for part in parts if part), _digest(json.dumps(told, sort_keys=True))])


def said(answer: Body, limit: int) -> str | NoAnswer:
    """The text of a chat answer, or why there is none. Raises `AttemptFailed` for one that broke off."""
    choice = answer["choices"][0]
    message = choice["message"]
    thoughts = message.get("reasoning_content") or message.get("reasoning") or message.get("thinking")
    return text_of(
        message.get("content"),
        limit=limit,
        finish=choice.get("finish_reason"),
        refusal=message.get("refusal"),
        thoughts=thoughts or message.get("reasoning_details"),
    )


def top_of(answer: Body) -> list[tuple[str, float]]:
    """(token, log-probability) of the alternatives of a chat answer's first token."""
    told = answer["choices"][0].get("logprobs") or {}
    first = (told.get("content") or [{}])[0] or {}
    return top_tokens(first.get("top_logprobs") or [])


def response_format(labels: Sequence[str], kind: str) -> dict[str, Any]:
    """OpenAI's structured output, or llama.cpp's older one, limited to one of `labels`."""
    if kind == "json_object":
        return {"type": "json_object", "schema": label_schema(labels)}
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": label_schema(labels)}}


def scoring_fields(token_ids: Sequence[int]) -> dict[str, Any]:
    """vLLM's request for the log-probabilities of given next tokens, named by id since texts may coincide."""
    return {"logprobs": 0, "logprob_token_ids": list(token_ids), "return_tokens_as_token_ids": True}


def _choices(answer: Body) -> list[dict[str, Any]]:
    choices = answer.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _words(answer: Body) -> str:
    """What an answer without choices says."""
    return words_in(answer) or json.dumps(answer)[:200]


def _lasting(entry: Body) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in _PASSING and not _is_now(value)}


def _is_now(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return any(abs(value / scale - time.time()) < _NOW_SECONDS for scale in (1, 1000))


def _digest(text: Any) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()[:16]
