"""A model on an Ollama server, spoken to with the official async client.

Departures from the client's defaults: a time limit (it has none), `stream: false`, temperature 0 and a fixed seed,
thinking turned off where the model has it (an answer limit of a few tokens would be spent on thoughts), and the model
loaded before the first batch, so that loading does not count as a slow answer.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prewrite.errors import CapabilityError, ConfigError, MissingDependencyError, ModelNotFoundError, TaskModelError
from prewrite.task_models.base import Capability
from prewrite.task_models.labels import label_schema, label_tokens, read_label, scores_from_top
from prewrite.task_models.pool import Job, RequestPool
from prewrite.task_models.retry import AttemptFailed, NotFound, Refused, RetryPolicy
from prewrite.task_models.stream import Batch, Reply, StreamedTaskModel, token_bound

DEFAULT_ADDRESS = "http://127.0.0.1:11434"
FORMAT_SINCE = (0, 5, 0)
"""First server version whose `format` takes a JSON schema."""
LOGPROBS_SINCE = (0, 12, 11)
"""First server version that returns log-probabilities; older ones ignore the request for them."""
TOP = 20
"""Most alternatives per token that the server returns."""
RETRIED_STATUS = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class OllamaFacts:
    """What the server says about itself and the model."""

    version: str
    digest: str
    """Of the model's files, so that a re-pulled tag is another model."""
    thinks: bool


class OllamaTaskModel(StreamedTaskModel):
    """See the module docstring.

    Args:
        model: a name as `ollama list` shows it, e.g. `gemma3:4b`.
        address: the server; by default `OLLAMA_HOST`, else http://127.0.0.1:11434. A key, where one is needed, comes
            from `OLLAMA_API_KEY`.
        chat: send the prompt as a user message (`/api/chat`, the model's own template); off sends it bare.
        max_new_tokens: limit of `generate`, at least 1.
        num_ctx: context length in tokens. Ollama cuts longer prompts off without an error.
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
        try:
            import ollama
        except ImportError:
            raise MissingDependencyError("the ollama backend needs `pip install 'prewrite[ollama]'`") from None
        if not model:
            raise ConfigError("ollama: the model name is empty; write e.g. ollama:gemma3:4b")
        if max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
        self.model = model
        self.address = _address(address or os.environ.get("OLLAMA_HOST") or DEFAULT_ADDRESS)
        self.name = f"ollama:{model}"
        self.chat, self.max_new_tokens, self.num_ctx = chat, max_new_tokens, num_ctx
        self.label_scores, self.keep_alive, self.load_timeout = label_scores, keep_alive, load_timeout
        self._facts: OllamaFacts | None = None
        self._warm = False
        self._lock = threading.Lock()
        self._pool: RequestPool[ollama.AsyncClient] = RequestPool(
            f"the Ollama server at {self.address}",
            "Check that it runs (`ollama serve`) and that OLLAMA_HOST is right, then run again: answers are cached",
            make_client=lambda: ollama.AsyncClient(self.address, timeout=max(timeout, load_timeout)),
            close_client=lambda client: client.close(),
            concurrency=concurrency,
            timeout=timeout,
            retry=retry or RetryPolicy(),
        )

    @property
    def facts(self) -> OllamaFacts:
        """Asked once. Raises `TaskModelError` without a server, `ModelNotFoundError` with the line that pulls it."""
        with self._lock:
            if self._facts is None:
                self._facts = self._pool.call(self._ask_facts)
            return self._facts

    @property
    def capabilities(self) -> frozenset[Capability]:
        """By server version; `prewrite doctor` tries them."""
        version = _version(self.facts.version)
        can: set[Capability] = {"generate"}
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

    @property
    def identity(self) -> str:  # type: ignore[override]
        """Name, digest, server version and settings."""
        facts = self.facts
        return (
            f"{self.name}|{facts.digest}|ollama {facts.version}|chat={self.chat}|num_ctx={self.num_ctx}"
            f"|max_new_tokens={self.max_new_tokens}"
        )

    def warm(self) -> None:
        """Load the model into the server's memory and wait for it."""
        if self.facts.version:  # a missing model is reported with its remedy before anything is loaded
            self._pool.call(self._load, timeout=self.load_timeout)
        self._warm = True

    def stream(self, batch: Batch) -> Iterator[tuple[int, Reply]]:
        """See `StreamedTaskModel.stream`; one request per prompt."""
        if not self._warm:
            self.warm()
        limit = {"generate": self.max_new_tokens, "label_logprobs": 1}.get(batch.method) or label_tokens(batch.labels)
        request: dict[str, Any] = {
            "model": self.model,
            "options": {"temperature": 0, "seed": 0, "num_predict": limit, "num_ctx": self.num_ctx},
            "keep_alive": self.keep_alive,
        }
        if batch.method == "constrained":
            request["format"] = label_schema(batch.labels)
        if batch.method == "label_logprobs":
            request |= {"logprobs": True, "top_logprobs": TOP}
        if self.facts.thinks:
            request["think"] = False

        async def send(client: Any, job: Job) -> Reply:
            prompt = batch.prompts[job[0]]
            if self.chat:
                answer = await _send(client.chat(messages=[{"role": "user", "content": prompt}], **request))
                text = answer.message.content
            else:
                answer = await _send(client.generate(prompt=prompt, raw=True, **request))
                text = answer.response
            if not answer.done or text is None:
                raise AttemptFailed("the answer is incomplete", billed=True)
            return Reply(self._value(batch, prompt, text, answer), answer.prompt_eval_count, answer.eval_count)

        def sending(job: Job) -> None:
            batch.sending(job[0], token_bound(batch.prompts[job[0]]), limit)

        def failed(job: Job, billed: bool) -> None:
            batch.failed(job[0], billed)

        jobs = [[row] for row in range(len(batch.prompts))]
        for job, reply in self._pool.run(jobs, send, sending=sending, failed=failed):
            yield job[0], reply

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def _value(self, batch: Batch, prompt: str, text: str, answer: Any) -> str | tuple[float, ...]:
        if batch.method == "constrained":
            return read_label(text, batch.labels)
        if batch.method == "generate":
            return text
        if not answer.logprobs:
            raise TaskModelError(
                f"{self.address} ignored the request for log-probabilities; use decoding 'constrained'"
            )
        top = [(entry.token, entry.logprob) for entry in answer.logprobs[0].top_logprobs or []]
        return scores_from_top(top, batch.labels, prompt)

    async def _load(self, client: Any) -> None:
        await _send(client.generate(model=self.model, keep_alive=self.keep_alive, options={"num_ctx": self.num_ctx}))

    async def _ask_facts(self, client: Any) -> OllamaFacts:
        import httpx

        async with httpx.AsyncClient(timeout=self._pool.timeout) as plain:  # the client has no call for the version
            response = await _send(plain.get(f"{self.address}/api/version"))
        try:
            version = response.json()["version"]
        except (json.JSONDecodeError, KeyError, TypeError):
            raise TaskModelError(
                f"{self.address} does not speak Ollama's API (GET /api/version gave HTTP {response.status_code}); "
                "give the address of an Ollama server, or use openai:MODEL@ADDRESS/v1"
            ) from None
        names = {entry.model: entry.digest for entry in (await _send(client.list())).models}
        try:
            shown = await _send(client.show(self.model))
        except NotFound:
            have = ", ".join(sorted(names)) or "none"
            raise ModelNotFoundError(
                f"model {self.model!r} is not on the Ollama server at {self.address} (it has: {have}); "
                f"run `ollama pull {self.model}`"
            ) from None
        digest = names.get(self.model) or names.get(f"{self.model}:latest") or "unlisted"
        return OllamaFacts(version, digest, thinks="thinking" in (shown.capabilities or []))


async def _send(request: Any) -> Any:
    """Await one request of the client; failures that may pass become `AttemptFailed`, others `TaskModelError`."""
    import httpx
    import ollama
    import pydantic

    try:
        return await request
    except ollama.ResponseError as error:
        if error.status_code == 404:
            raise NotFound(error.error) from None
        if error.status_code in RETRIED_STATUS or error.status_code == -1:
            wait = _retry_after(error.__context__)
            raise AttemptFailed(
                f"HTTP {error.status_code}: {error.error}", billed=error.status_code != 429, retry_after=wait
            ) from None
        raise Refused(str(error)) from None
    except (ConnectionError, httpx.ConnectError) as error:
        raise AttemptFailed(f"no connection ({_short(error)})", billed=False) from None
    except httpx.TransportError as error:
        raise AttemptFailed(f"connection dropped ({_short(error)})", billed=True) from None
    except (json.JSONDecodeError, pydantic.ValidationError, UnicodeDecodeError, TypeError) as error:
        raise AttemptFailed(f"the answer is not Ollama's JSON ({_short(error)})", billed=True) from None


def _retry_after(error: BaseException | None) -> float | None:
    """Seconds in the Retry-After header of the failed response that the client's error came from."""
    headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", {})
    value = headers.get("retry-after", "")
    return float(value) if value.replace(".", "", 1).isdigit() else None


def _short(error: Exception) -> str:
    first = str(error).splitlines()[:1]
    return first[0] if first else type(error).__name__


def _address(text: str) -> str:
    """A URL: OLLAMA_HOST may leave out scheme and port, and 0.0.0.0 is where a server listens, not where one calls."""
    if "://" not in text:
        text = f"http://{text}" if ":" in text else f"http://{text}:11434"
    return text.rstrip("/").replace("//0.0.0.0", "//127.0.0.1")


def _version(text: str) -> tuple[int, ...]:
    """`0.12.11-rc1` as (0, 12, 11); (0,) if it is not a version, such as a build from source."""
    parts = text.split("-")[0].split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else (0,)
