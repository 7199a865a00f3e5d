"""A model on an Ollama server.

Departures from the server's defaults: no streaming, temperature 0 and a fixed seed, thinking turned off where the
model has it (an answer limit of a few tokens would be spent on thoughts), prompts refused instead of cut where the
server can do that, and the model loaded before the first batch, so that loading does not count as a slow answer.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from prewrite.errors import CapabilityError, ConfigError, TaskModelError
from prewrite.lm.tokens import SENT_BARE, bare_text
from prewrite.task_models.addresses import ollama_address
from prewrite.task_models.base import Capability
from prewrite.task_models.labels import label_in, label_schema, label_tokens, scores_from_top, top_tokens
from prewrite.task_models.ollama_api import OllamaApi, OllamaFacts
from prewrite.task_models.pool import Job, RequestPool
from prewrite.task_models.replies import is_cut, text_of, tokens_of
from prewrite.task_models.retry import AttemptFailed, Refused, RetryPolicy
from prewrite.task_models.server import Connection
from prewrite.task_models.stream import (
    Batch,
    NoAnswer,
    Replies,
    Reply,
    StreamedTaskModel,
    Value,
)
from prewrite.task_models.token_counts import cut_short, fewest_tokens, token_bound
from prewrite.types import Prompt, messages_of

FORMAT_SINCE = (0, 5, 0)
"""First server version whose `format` takes a JSON schema."""
LOGPROBS_SINCE = (0, 12, 11)
"""First server version that returns log-probabilities; older ones ignore the request for them."""
TOP = 20
"""Most alternatives per token that the server returns."""


class OllamaTaskModel(StreamedTaskModel):
    """See the module docstring.

    Args:
        model: a name as `ollama list` shows it, e.g. `gemma3:4b`.
        address: the server; by default `OLLAMA_HOST`, else http://127.0.0.1:11434. A key, where one is needed, comes
            from `OLLAMA_API_KEY`.
        chat: send the prompt as a user message (`/api/chat`, the model's own template); off sends it bare.
        max_new_tokens: limit of `generate`, at least 1.
        num_ctx: context length in tokens. A longer prompt has no answer.
        label_scores: offer `label_logprobs`, read from the 20 likeliest next tokens; see `labels.scores_from_top`. Off
            by default, since labels of several tokens, or unlikely ones, are not among them.
        keep_alive: how long the server keeps the model loaded, as Ollama writes it.
        concurrency: requests open at a time; more than the server's OLLAMA_NUM_PARALLEL wait in its queue.
        timeout: seconds per attempt.
        load_timeout: seconds for loading the model before the first batch.
    """

    def __init__(
        self,
        model: str,
        *,
        address: str | None = None,
        chat: bool = True,
        max_new_tokens: int = 64,
        num_ctx: int = 4096,
        label_scores: bool = False,
        keep_alive: str | float = "10m",
        concurrency: int = 4,
        timeout: float = 120.0,
        load_timeout: float = 600.0,
        retry: RetryPolicy | None = None,
    ):
        if not model:
            raise ConfigError("ollama: the model name is empty; write e.g. ollama:gemma3:4b")
        if max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
        self.model = model
        self.address = ollama_address(model, address)
        self.name = f"ollama:{model}"
        self.chat, self.max_new_tokens, self.num_ctx = chat, max_new_tokens, num_ctx
        self.label_scores, self.keep_alive, self.load_timeout = label_scores, keep_alive, load_timeout
        connection = Connection(self.address, key_variable="OLLAMA_API_KEY", backend="ollama")
        self._api = OllamaApi(connection, model)
        self._facts: OllamaFacts | None = None
        self._loaded = False
        self._lock = threading.Lock()
        self._pool: RequestPool[Any] = RequestPool(
            f"the Ollama server at {self.address}",
            "Check that it runs (`ollama serve`) and that OLLAMA_HOST is right, then run again: answers are cached",
            make_client=lambda: connection.open(max(timeout, load_timeout)),
            close_client=lambda client: client.aclose(),
            concurrency=concurrency,
            timeout=timeout,
            retry=retry or RetryPolicy(),
        )

    @property
    def facts(self) -> OllamaFacts:
        """Asked once. Raises `TaskModelError` without a server, `ModelNotFoundError` with the line that pulls it."""
        with self._lock:
            if self._facts is None:
                self._facts = self._pool.call(self._api.facts)
            return self._facts

    @property
    def capabilities(self) -> frozenset[Capability]:
        """By server version; `prewrite doctor` tries them."""
        version = _version(self.facts.version)
        can: set[Capability] = {"generate", "turns"} if self.chat else {"generate"}
        if version >= FORMAT_SINCE:
            can.add("constrained")
        if self.label_scores:
            if version < LOGPROBS_SINCE:
                wanted = ".".join(map(str, LOGPROBS_SINCE))
                raise CapabilityError(
                    f"label_scores needs Ollama {wanted} or newer, {self.address} is {self.facts.version}; update the "
                    "server, or use decoding 'constrained'"
                )
            can.add("label_logprobs")
        return frozenset(can)

    def why_not(self, capability: Capability) -> str:
        """Why a capability is not offered."""
        if capability == "turns":
            return SENT_BARE
        if capability == "constrained":
            return f"a JSON schema needs Ollama {'.'.join(map(str, FORMAT_SINCE))} or newer"
        if capability == "label_logprobs":
            return "label_scores=true reads labels from the 20 likeliest tokens"
        return "Ollama returns no log-probabilities of given texts"

    @property
    def identity(self) -> str:  # type: ignore[override]
        """Name, digest, server version and settings."""
        facts = self.facts
        return (
            f"{self.name}|{facts.digest or 'unlisted'}|ollama {facts.version}|chat={self.chat}|num_ctx={self.num_ctx}"
            f"|max_new_tokens={self.max_new_tokens}"
        )

    @property
    def notes(self) -> list[str]:
        """What a reader of the results should know of this server."""
        facts, found = self.facts, []
        if not facts.digest:
            found.append(
                "the server lists no digest of this model: another one behind its name would not be noticed, and "
                "cached answers would be the old one's (`prewrite cache clear` after a change)"
            )
        if facts.elsewhere:
            found.append(f"the model runs on {facts.elsewhere}, and prompts go there")
        return found

    def load(self) -> None:
        """Load the model into the server's memory and wait for it."""
        if self.facts.version:  # a missing model is reported with its remedy before anything is loaded
            self._pool.call(
                lambda client: self._api.load(client, keep_alive=self.keep_alive, num_ctx=self.num_ctx),
                timeout=self.load_timeout,
            )
        self._loaded = True

    def stream(self, batch: Batch) -> Replies:
        """See `StreamedTaskModel.stream`; one request per prompt."""
        if not batch.prompts:
            return
        if not self._loaded:
            self.load()
        self._check_digest()
        request, limit = self._request(batch)
        path = "chat" if self.chat else "generate"

        async def send(client: Any, job: Job) -> Reply:
            prompt = batch.prompts[job[0]]
            if (least := fewest_tokens(prompt)) > self.num_ctx:
                return Reply(NoAnswer(f"it has {least:,} tokens or more, and {self._too_long}"), 0, 0)
            asked = {"messages": messages_of(prompt)} if self.chat else {"prompt": bare_text(prompt), "raw": True}
            drawn = batch.sampling[job[0]]._asdict() if batch.sampling else {}
            asked["options"] = request["options"] | drawn
            return self._reply(batch, prompt, await self._api.post(client, path, request | asked), limit)

        def sending(job: Job) -> None:
            batch.sending(job[0], token_bound(batch.prompts[job[0]]), limit)

        def failed(job: Job, billed: bool) -> None:
            batch.failed(job[0], billed)

        def refused(error: Refused) -> Reply:
            remedy = f"; {self._too_long}" if error.too_long else ""
            return Reply(NoAnswer(f"the server refused it: {error}{remedy}"), 0, 0)

        jobs = [[row] for row in range(len(batch.prompts))]
        for job, reply in self._pool.run(jobs, send, sending=sending, failed=failed, refused=refused):
            yield job[0], reply

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    @property
    def _too_long(self) -> str:
        return f"num_ctx is {self.num_ctx}: raise num_ctx, or shorten the row"

    def _request(self, batch: Batch) -> tuple[dict[str, Any], int]:
        """The fields of every request of `batch`, and the output limit among them."""
        limit = 1 if batch.method == "label_logprobs" else self.max_new_tokens
        if batch.method == "constrained":  # as many as free text, where a model thinks although it is asked not to
            limit = max(limit, label_tokens(batch.labels))
        request: dict[str, Any] = {
            "model": self.model,
            "stream": False,
            "options": {"temperature": 0, "seed": 0, "num_predict": limit, "num_ctx": self.num_ctx},
            "keep_alive": self.keep_alive,
            "truncate": False,
        }
        if batch.method == "constrained":
            request["format"] = label_schema(batch.labels)
        if batch.method == "label_logprobs":
            request |= {"logprobs": True, "top_logprobs": TOP}
        if self.facts.thinks:
            request["think"] = False
        return request, limit

    def _reply(self, batch: Batch, prompt: Prompt, answer: Any, limit: int) -> Reply:
        """One answer, checked. Raises `AttemptFailed` for one that is incomplete."""
        message = answer.get("message") if self.chat and isinstance(answer, dict) else answer
        if not isinstance(message, dict) or not answer.get("done") or answer.get("done_reason") in ("load", "unload"):
            raise AttemptFailed("the answer is incomplete", billed=True)
        if answer.get("model") not in (None, self.model, f"{self.model}:latest"):
            raise TaskModelError(f"{self.address} answers as {answer['model']!r} when asked for {self.model!r}")
        usage = {"prompt_tokens": answer.get("prompt_eval_count"), "completion_tokens": answer.get("eval_count")}
        read, written = tokens_of(usage)
        if cut := cut_short([prompt], read):
            return Reply(NoAnswer(f"{cut}; {self._too_long}"), read, written)
        if read is not None and read >= self.num_ctx:
            return Reply(NoAnswer(f"its {read:,} tokens fill the context or are cut; {self._too_long}"), read, written)
        text = text_of(
            message.get("content" if self.chat else "response"),
            limit=limit,
            finish=answer.get("done_reason"),
            thoughts=message.get("thinking"),
        )
        return Reply(self._value(batch, prompt, text, answer), read, written)

    def _value(
        self, batch: Batch, prompt: Prompt, text: str | NoAnswer, answer: Mapping[str, Any]
    ) -> Value | NoAnswer:
        if batch.method == "label_logprobs":
            if not answer.get("logprobs"):
                raise TaskModelError(
                    f"{self.address} ignored the request for log-probabilities; use decoding 'constrained'"
                )
            top = top_tokens(answer["logprobs"][0].get("top_logprobs") or [])
            return scores_from_top(top, batch.labels, str(prompt))
        if batch.method == "generate" or isinstance(text, NoAnswer):
            return text
        if (label := label_in(text, batch.labels)) is not None:
            return label
        if is_cut(answer.get("done_reason")):
            return NoAnswer(f"wrote {text[:40]!r} and no whole label within its limit")
        if self.facts.thinks:
            raise CapabilityError(
                f"{self.name} does not keep a format while its thinking is off: it wrote {text[:60]!r} where one of "
                f"{list(batch.labels)} was asked for; use --decoding generate"
            )
        raise AttemptFailed(f"the answer {text[:80]!r} is not one of the labels it was limited to", billed=True)

    def _check_digest(self) -> None:
        """Raise `TaskModelError` if the model's name stands for other files than at the start."""
        try:
            now = self._pool.call(self._api.listed).get(self.model, "") if self.facts.digest else ""
        except TaskModelError:
            return  # the requests that follow will show why
        if now != self.facts.digest:
            raise TaskModelError(
                f"{self.name} is another model now: digest {self.facts.digest[:12]} became {now[:12] or 'none'}. "
                "Answers so far are cached as the old one's. Run again to ask the new one from the start"
            )


def _version(text: str) -> tuple[int, ...]:
    """`0.12.11-rc1` as (0, 12, 11); (0,) if it is not a version, such as a build from source."""
    parts = text.split("-")[0].split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else (0,)
