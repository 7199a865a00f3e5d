"""What an OpenAI-compatible server can really do, found out with a few tiny calls.

Servers ignore fields that they do not know, with a 200, and one popular server returns echoed log-probabilities
shifted by a token. So each probe looks at the answer: a choice between two odd words must give one of them, and the
echoed log-probability of a token must be the one that the server gave when it wrote that token.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prewrite.errors import ModelNotFoundError, TaskModelError
from prewrite.task_models.labels import label_schema
from prewrite.task_models.retry import AttemptFailed, NoAccess, NotFound, Refused

ODD_WORDS = ("zebra", "quartz")
COUNTING = "1 2 3 4 5 6 7"
"""A prompt whose next token is plain text in any language model."""
Limit = Literal["max_tokens", "max_completion_tokens"]
Ask = Callable[[Any], Coroutine[Any, Any, Any]]
Call = Callable[[Ask], Any]
"""Runs one request against a client and waits for it; `RequestPool.call`."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the probes found."""

    version: str | None
    """vLLM's version; other servers do not tell theirs."""
    completions: bool
    """POST /completions: bare prompts."""
    chat: bool
    """POST /chat/completions."""
    lists: bool = False
    """Several bare prompts in one request."""
    choice: bool = False
    """vLLM's `structured_outputs.choice`."""
    json_schema: bool = False
    """OpenAI's `response_format: json_schema`, in chat."""
    echo: bool = False
    """Log-probabilities of a given text, and right ones."""
    tokenize: bool = False
    """POST /tokenize beside the API, of vLLM."""
    token_ids: bool = False
    """vLLM's `logprob_token_ids`: exact scores of single-token labels in one request."""
    top_logprobs: int = 0
    """Alternatives per token in chat."""
    limit: Limit = "max_tokens"
    greedy: bool = True
    """Whether the model takes `temperature: 0`; some hosted models refuse it."""

    def settings(self, tokens: int) -> dict[str, Any]:
        """Output limit and greedy decoding, in this server's words."""
        return {self.limit: tokens} | ({"temperature": 0, "seed": 0} if self.greedy else {})


def probe(call: Call, model: str, root: str, server: str) -> ServerFacts:
    """Ask the server what it can do; about ten requests of a few tokens.

    Raises `ModelNotFoundError` with the models that the server lists, `TaskModelError` if it does not answer.
    """
    return _Probe(call, model, root, server).run()


class _Probe:
    def __init__(self, call: Call, model: str, root: str, server: str):
        self.call, self.model, self.root, self.server = call, model, root, server

    def run(self) -> ServerFacts:
        completions = self._accepts(lambda client: self._complete(client, prompt=COUNTING))
        chat = self._chat()
        if not completions and chat is None:
            raise self._no_model()
        facts: dict[str, Any] = {"completions": completions, "chat": chat is not None, **(chat or {})}
        if completions:
            tokenize = self._tokenizes()
            facts |= {
                "lists": self._lists(),
                "choice": self._chooses(),
                "echo": self._echoes(),
                "tokenize": tokenize,
                "token_ids": tokenize and self._scores_token_ids(),
            }
        if chat is not None:
            known = ServerFacts(None, completions, True, **chat)
            facts |= {"json_schema": self._keeps_schema(known), "top_logprobs": self._top_logprobs(known)}
        return ServerFacts(version=self._version(), **facts)

    def _accepts(self, request: Ask) -> bool:
        try:
            self.call(request)
        except Refused:
            return False
        return True

    async def _complete(self, client: Any, **fields: Any) -> Any:
        return await send(
            client.completions.create(model=self.model, **({"max_tokens": 1, "temperature": 0} | fields))
        )

    async def _talk(self, client: Any, text: str, **fields: Any) -> Any:
        messages = [{"role": "user", "content": text}]
        return await send(client.chat.completions.create(model=self.model, messages=messages, **fields))

    def _chat(self) -> dict[str, Any] | None:
        """The limit's name and whether temperature 0 is taken; None without a chat endpoint."""
        limit, greedy = "max_tokens", True
        for _ in range(3):
            fields = {limit: 16} | ({"temperature": 0} if greedy else {})
            try:
                self.call(lambda client, fields=fields: self._talk(client, "Say yes.", **fields))  # type: ignore[misc]
            except NotFound:
                return None
            except Refused as error:
                if limit in str(error) and limit == "max_tokens":
                    limit = "max_completion_tokens"
                elif "temperature" in str(error) and greedy:
                    greedy = False
                else:
                    return None
            else:
                return {"limit": limit, "greedy": greedy}
        return None

    def _no_model(self) -> TaskModelError | ModelNotFoundError:
        names = self._models()
        if names is None:
            return TaskModelError(
                f"{self.server} answers neither /completions nor /chat/completions for model {self.model!r}; "
                "check that the address ends in the API's path, usually /v1"
            )
        return ModelNotFoundError(
            f"model {self.model!r} is not served at {self.server} (it has: {', '.join(names) or 'none'}); "
            "name one of these, or start the server with that model"
        )

    def _models(self) -> list[str] | None:
        async def ask(client: Any) -> list[str]:
            return [entry.id for entry in (await send(client.models.list())).data or []]

        try:
            names: list[str] = self.call(ask)
        except Refused:
            return None
        return names

    def _version(self) -> str | None:
        async def ask(client: Any) -> Any:
            return await send(client.get(f"{self.root}/version", cast_to=object))

        try:
            told = self.call(ask)
        except (Refused, TaskModelError):
            return None
        return str(told["version"]) if isinstance(told, dict) and "version" in told else None

    def _lists(self) -> bool:
        async def ask(client: Any) -> bool:
            return len((await self._complete(client, prompt=[COUNTING, COUNTING])).choices or []) == 2

        return self._holds(ask)

    def _chooses(self) -> bool:
        async def ask(client: Any) -> bool:
            extra = {"structured_outputs": {"choice": list(ODD_WORDS)}}
            answer = await self._complete(client, prompt=COUNTING, max_tokens=16, extra_body=extra)
            return answer.choices[0].text in ODD_WORDS

        return self._holds(ask)

    def _keeps_schema(self, facts: ServerFacts) -> bool:
        async def ask(client: Any) -> bool:
            answer = await self._talk(
                client, "Say yes.", response_format=response_format(ODD_WORDS), **facts.settings(64)
            )
            try:
                return json.loads(answer.choices[0].message.content)["label"] in ODD_WORDS
            except (json.JSONDecodeError, KeyError, TypeError):
                return False

        return self._holds(ask)

    def _top_logprobs(self, facts: ServerFacts) -> int:
        async def ask(client: Any) -> bool:
            answer = await self._talk(client, "Say yes.", logprobs=True, top_logprobs=20, **facts.settings(1))
            told = answer.choices[0].logprobs
            return bool(told and told.content and told.content[0].top_logprobs)

        return 20 if self._holds(ask) else 0

    def _echoes(self) -> bool:
        async def ask(client: Any) -> bool:
            written = (await self._complete(client, prompt=COUNTING, logprobs=1)).choices[0]
            if not written.logprobs or not written.text:
                return False
            again = await self._complete(client, prompt=COUNTING + written.text, max_tokens=0, echo=True, logprobs=1)
            told = again.choices[0].logprobs
            if not told or not told.token_logprobs or told.token_logprobs[-1] is None:
                return False
            return bool(abs(told.token_logprobs[-1] - written.logprobs.token_logprobs[0]) < 0.1)

        return self._holds(ask)

    def _tokenizes(self) -> bool:
        async def ask(client: Any) -> bool:
            return bool(await tokenize(client, self.root, self.model, COUNTING))

        return self._holds(ask)

    def _scores_token_ids(self) -> bool:
        async def ask(client: Any) -> bool:
            ids = [(await tokenize(client, self.root, self.model, f" {word}"))[0] for word in ODD_WORDS]
            answer = await self._complete(client, prompt=COUNTING, **scoring_fields(ids))
            told = answer.choices[0].logprobs
            shown = told.top_logprobs[0] if told and told.top_logprobs else {}
            return all(f"token_id:{token}" in shown for token in ids)

        return self._holds(ask)

    def _holds(self, ask: Ask) -> bool:
        """Whether the server does it; a refusal, or failing at it, is a no."""
        try:
            return bool(self.call(ask))
        except TaskModelError:
            return False


def response_format(labels: Sequence[str]) -> dict[str, Any]:
    """OpenAI's structured output, limited to one of `labels`."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": label_schema(labels)}}


def scoring_fields(token_ids: Sequence[int]) -> dict[str, Any]:
    """vLLM's request for the log-probabilities of given next tokens, named by id since texts may coincide."""
    extra = {"logprob_token_ids": list(token_ids), "return_tokens_as_token_ids": True}
    return {"max_tokens": 1, "temperature": 0, "logprobs": 0, "extra_body": extra}


async def tokenize(client: Any, root: str, model: str, text: str, *, chat: bool = False) -> list[int]:
    """Token ids of `text` by vLLM: bare and without special tokens, or as a user message in the chat template."""
    body: dict[str, Any] = {"model": model}
    if chat:
        body |= {"messages": [{"role": "user", "content": text}], "add_generation_prompt": True}
    else:
        body |= {"prompt": text, "add_special_tokens": False}
    told = await send(client.post(f"{root}/tokenize", body=body, cast_to=object))
    if not isinstance(told, dict) or not isinstance(told.get("tokens"), list):
        raise AttemptFailed(f"POST /tokenize gave {str(told)[:80]!r}", billed=False)
    return [int(token) for token in told["tokens"]]


async def send(request: Awaitable[Any]) -> Any:
    """Await one request of the client; failures that may pass become `AttemptFailed`, others `TaskModelError`."""
    import openai

    try:
        answer = await request
    except openai.APITimeoutError:
        raise AttemptFailed("timed out", billed=True) from None
    except openai.APIConnectionError as error:
        cause = error.__cause__ or error
        refused = "Connect" in type(cause).__name__  # httpx.ConnectError, ConnectTimeout: nothing was sent
        raise AttemptFailed(f"connection failed ({cause or type(cause).__name__})", billed=not refused) from None
    except openai.APIStatusError as error:
        raise _from_status(error) from None
    except (openai.APIResponseValidationError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise AttemptFailed(f"the answer is not JSON ({error})", billed=True) from None
    if isinstance(answer, str | bytes):  # what the client returns when the content type is not JSON
        raise AttemptFailed(f"the answer is not JSON ({answer[:60]!r})", billed=True)
    return answer


def _from_status(error: Any) -> Exception:
    status, told = error.status_code, str(error.message)
    if status in (401, 403):
        return NoAccess(f"HTTP {status}: {told}. Set OPENAI_API_KEY to a key that may use this model")
    if status == 429 and error.code == "insufficient_quota":
        return NoAccess(f"HTTP 429: {told}. The account has no credit left")
    if status in (408, 409, 429) or status >= 500:
        value = error.response.headers.get("retry-after", "")
        wait = float(value) if value.replace(".", "", 1).isdigit() else None
        return AttemptFailed(f"HTTP {status}: {told}", billed=status != 429, retry_after=wait)
    return (NotFound if status == 404 else Refused)(f"HTTP {status}: {told}")
