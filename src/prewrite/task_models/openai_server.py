"""What an OpenAI-compatible server can really do, found out with about a dozen tiny calls.

Servers ignore fields that they do not know, with a 200, and one popular server returns echoed log-probabilities
shifted by a token. So each probe looks at the answer: a choice between two odd words must give one of them, and the
echoed log-probability of a token must be the one that the server gave when it wrote that token.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from prewrite.errors import ModelNotFoundError, TaskModelError
from prewrite.task_models.labels import label_in
from prewrite.task_models.openai_api import Body, OpenAIApi, Stamp, response_format, said, scoring_fields, top_of
from prewrite.task_models.openai_facts import ServerFacts
from prewrite.task_models.retry import AttemptFailed, NoAccess, NotFound, Refused
from prewrite.task_models.server import named_field
from prewrite.task_models.stream import NoAnswer

logger = logging.getLogger(__name__)

ODD_WORDS = ("zebra", "quartz")
COUNTING = "1 2 3 4 5 6 7"
"""A prompt whose next token is plain text in any language model."""
SCHEMA_TOKENS = (64, 1024, 4096)
"""Output limits of the probes, one after the other while a model spends them on thinking."""
TOP = (20, 5)
"""Alternatives per token that servers allow at most, where they do not name their limit."""
SHIFTED = "it returns log-probabilities shifted by one token"
Ask = Callable[[Any], Coroutine[Any, Any, Any]]
Call = Callable[[Ask], Any]
"""Runs one request against a client and waits for it; `RequestPool.call`."""


def probe(call: Call, api: OpenAIApi, server: str) -> ServerFacts:
    """Ask the server what it can do.

    Raises `ModelNotFoundError` with the models that the server lists, `TaskModelError` with the server's words if it
    does not answer.
    """
    return _Probe(call, api, server).run()


class _Probe:
    def __init__(self, call: Call, api: OpenAIApi, server: str):
        self.call, self.api, self.server = call, api, server
        self.limit = "max_tokens"
        self.dropped: list[str] = []
        self.why_not: dict[str, str] = {}

    def run(self) -> ServerFacts:
        told = self.call(self.api.about_model)
        found: dict[str, Any] = {"told": told}
        bare = self._asked("completions", self._complete, COUNTING)
        talked = self._asked("chat", self._talk, "Say yes.", tokens=16)
        if bare is None and talked is None:
            raise self._no_model()
        if bare is not None:
            found |= {"completions": True, "completions_stamp": Stamp.of(bare)}
            found |= {"lists": self._holds("lists", self._takes_lists)}
            found |= {"choice": self._holds("choice", self._chooses)}
            found |= self._holds("echo", self._echoes) or {}
            found |= {"tokenize": self._holds("tokenize", self._tokenizes)}
            if found["tokenize"]:
                found |= {"token_ids": self._holds("token_ids", self._scores_token_ids)}
        if talked is not None:
            thinks = seems_to_think(talked, self._said(talked, 16))
            found |= {"chat": True, "chat_stamp": Stamp.of(talked), "thinks": thinks}
            found |= {"schema": self._holds("schema", self._keeps_schema) or ""}
            if thinks:
                self.why_not["top_logprobs"] = "the model thinks first, so its first token is no label"
            else:
                found |= {"top_logprobs": self._holds("top_logprobs", self._top_logprobs) or 0}
        return ServerFacts(**found, limit=self.limit, dropped=tuple(self.dropped), why_not=self.why_not)

    # ---- one request each ---------------------------------------------------------------------------------------

    def _complete(self, prompt: str | Sequence[str], tokens: int = 1, **fields: Any) -> Body:
        """POST /completions, without the settings that the server refuses by name."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        answer: Body = self._sent(
            lambda settings: lambda client: self.api.complete(client, prompts, settings | fields), tokens, chat=False
        )
        return answer

    def _talk(self, prompt: str, tokens: int = 1, **fields: Any) -> Body:
        """POST /chat/completions, likewise."""
        answer: Body = self._sent(
            lambda settings: lambda client: self.api.talk(client, prompt, settings | fields), tokens, chat=True
        )
        return answer

    def _sent(self, ask: Callable[[dict[str, Any]], Ask], tokens: int, *, chat: bool) -> Any:
        while True:
            known = ServerFacts(limit=self.limit, dropped=tuple(self.dropped))
            settings = known.settings(tokens, chat=chat)
            try:
                return self.call(ask(settings))
            except NotFound:
                raise
            except Refused as error:
                name = named_field(error, list(settings))
                if name is None:
                    raise
                if name == "max_tokens" and chat:
                    self.limit = "max_completion_tokens"  # its newer name
                else:
                    self.dropped.append(name)

    def _asked(self, feature: str, ask: Callable[..., Body], prompt: str, tokens: int = 1) -> Body | None:
        """The answer of an endpoint; None where the server has none, or fails at it."""
        for limit in (tokens, *SCHEMA_TOKENS[1:]):
            try:
                answer = ask(prompt, tokens=limit)
                self.why_not.pop(feature, None)
                return answer
            except NoAccess:
                raise
            except Refused as error:
                self.why_not[feature] = _reason(error)
                if not error.cut:  # a thinking model may need more tokens to answer at all
                    return None
        return None

    def _holds(self, feature: str, ask: Callable[[], Any]) -> Any:
        """What `ask` finds. A refusal, a failure and a `_Missing` are a no, kept with the reason."""
        try:
            return ask()
        except NoAccess:
            raise
        except TaskModelError as error:
            self.why_not[feature] = _reason(error)
            return False

    # ---- the features -------------------------------------------------------------------------------------------

    def _takes_lists(self) -> bool:
        return bool(self._complete([COUNTING, COUNTING]))

    def _chooses(self) -> bool:
        answer = self._complete(COUNTING, tokens=16, structured_outputs={"choice": list(ODD_WORDS)})
        if answer["choices"][0].get("text") not in ODD_WORDS:
            raise _Missing("it ignores structured_outputs")
        return True

    def _keeps_schema(self) -> str:
        reasons = []
        for kind in ("json_schema", "json_object"):
            try:
                if (reason := self._schema_reason(kind)) is None:
                    return kind
            except Refused as error:
                reason = _reason(error)
            reasons.append(f"{kind}: {reason}")
        raise _Missing("; ".join(reasons))

    def _schema_reason(self, kind: str) -> str | None:
        """Why a schema is not kept; None where it is."""
        for tokens in SCHEMA_TOKENS:
            try:
                answer = self._talk("Say yes.", tokens=tokens, response_format=response_format(ODD_WORDS, kind))
            except Refused as error:
                if error.cut:
                    continue
                raise
            text = self._said(answer, tokens)
            if isinstance(text, NoAnswer) and "tokens" in text.reason:
                continue
            kept = isinstance(text, str) and label_in(text, ODD_WORDS) is not None
            return None if kept else f"it does not keep the schema ({_shown(text)})"
        logger.warning(
            "%s: the model thinks for more than %d tokens, so it is not known whether answers can be limited to the "
            "labels. They are read as free text. Turn thinking off on the server, or give --decoding constrained to "
            "insist.",
            self.server,
            tokens,
        )
        return f"not known: the model used {tokens} tokens for thinking"

    @staticmethod
    def _said(answer: Body, limit: int) -> str | NoAnswer:
        try:
            return said(answer, limit)
        except AttemptFailed as error:
            return NoAnswer(str(error))

    def _top_logprobs(self) -> int:
        """The most alternatives per token that the server gives."""
        wanted, tried = list(TOP), []
        while wanted:
            count = wanted.pop(0)
            tried.append(count)
            try:
                answer = self._talk("Say yes.", logprobs=True, top_logprobs=count)
            except Refused as error:
                allowed = [int(number) for number in re.findall(r"(?<![\w.])\d{1,2}(?![\w.])", str(error))]
                allowed = [number for number in allowed if 0 < number < count and number not in (*tried, *wanted)]
                wanted = sorted({*wanted, *allowed[-1:]}, reverse=True)
                if not wanted:
                    raise
                continue
            if not top_of(answer):
                raise _Missing("it returns no log-probabilities")
            return count
        return 0

    def _echoes(self) -> dict[str, Any]:
        written = self._complete(COUNTING, logprobs=1)["choices"][0]
        mine = written.get("logprobs") or {}
        if not mine.get("token_logprobs") or not written.get("text"):
            raise _Missing("it returns no log-probabilities")
        whole = COUNTING + written["text"]
        told = self._complete(whole, echo=True, logprobs=1)["choices"][0].get("logprobs") or {}
        tokens, logprobs = told.get("tokens") or [], told.get("token_logprobs") or []
        extra = next((extra for extra in (0, 1) if "".join(tokens[: len(tokens) - extra]) == whole), None)
        if extra is None or len(tokens) != len(logprobs):
            raise _Missing("it does not echo a prompt's log-probabilities")
        at, right = len(tokens) - extra - 1, mine["token_logprobs"][0]
        if _close(logprobs[at], right):
            return {"echo": True, "echo_extra": extra}
        before = (told.get("top_logprobs") or [{}] * at)[at - 1] or {}
        if at and any(_close(value, right) for value in (logprobs[at - 1], before.get(written["text"]))):
            raise _Missing(SHIFTED)
        raise _Missing("its echoed log-probabilities are not those that it gives in writing")

    def _tokenizes(self) -> bool:
        return bool(self.call(lambda client: self.api.tokenize(client, COUNTING)))

    def _scores_token_ids(self) -> bool:
        ids = [self.call(lambda c, w=word: self.api.tokenize(c, f" {w}"))[0] for word in ODD_WORDS]  # type: ignore[misc]
        told = self._complete(COUNTING, **scoring_fields(ids))["choices"][0].get("logprobs") or {}
        shown = (told.get("top_logprobs") or [{}])[0]
        if not all(f"token_id:{token}" in shown for token in ids):
            raise _Missing("it ignores logprob_token_ids")
        return True

    def _no_model(self) -> TaskModelError | ModelNotFoundError:
        listed = self.call(self.api.models)
        names = [str(entry.get("id")) for entry in listed or []]
        if listed is not None and self.api.model not in names:
            return ModelNotFoundError(
                f"model {self.api.model!r} is not served at {self.server} (it has: {', '.join(names) or 'none'}); "
                "name one of these, or start the server with that model"
            )
        said_of = {"/completions": self.why_not["completions"], "/chat/completions": self.why_not["chat"]}
        words = "; ".join(f"{endpoint}: {reason}" for endpoint, reason in said_of.items())
        key = f"the key in {self.api.connection.key_variable}"
        if not self.api.connection.has_key:
            key = f"whether the server wants a key: {self.api.connection.key_variable} is not set"
        remedy = f"; check that the address ends in the API's path, usually /v1, and {key}" if listed is None else ""
        return TaskModelError(
            f"{self.server} answers neither /completions nor /chat/completions for model {self.api.model!r} "
            f"({words}){remedy}"
        )


class _Missing(TaskModelError):
    """The server answers, and its answer shows that it lacks the feature."""


def seems_to_think(answer: Body, text: str | NoAnswer) -> bool:
    """Whether a chat answer, that was read as `text`, holds thoughts, shown or counted."""
    message = answer["choices"][0]["message"]
    if any(message.get(name) for name in ("reasoning_content", "reasoning", "thinking", "reasoning_details")):
        return True
    usage = answer.get("usage") or {}
    details = usage.get("completion_tokens_details") if isinstance(usage, Mapping) else None
    if isinstance(details, Mapping) and details.get("reasoning_tokens"):
        return True
    return isinstance(text, NoAnswer) and "thinking" in text.reason


def _close(one: Any, other: Any) -> bool:
    return isinstance(one, int | float) and isinstance(other, int | float) and abs(one - other) < 0.1


def _reason(error: Exception) -> str:
    """An error's text without the address that it begins with, in one line."""
    text = " ".join(str(error).split())
    _, refused, rest = text.partition(" refused: ")
    return (rest if refused else text)[:200]


def _shown(text: str | NoAnswer) -> str:
    return text.reason if isinstance(text, NoAnswer) else f"it wrote {text[:40]!r}"
