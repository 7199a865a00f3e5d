"""A model behind any OpenAI-compatible server, spoken to with the official async client.

vLLM, llama.cpp, LM Studio, Ollama's /v1 and hosted APIs share the endpoints and little else, so what this one can do
is probed once (`openai_server.py`). Scores of given labels come from vLLM's `logprob_token_ids` for labels of one
token and from echoed log-probabilities otherwise; both are exact.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from prewrite.errors import CapabilityError, ConfigError, MissingDependencyError, TaskModelError
from prewrite.lm.tokens import continuation
from prewrite.task_models.base import Capability
from prewrite.task_models.labels import label_tokens, read_label, scores_from_top
from prewrite.task_models.openai_server import ServerFacts, probe, response_format, scoring_fields, send, tokenize
from prewrite.task_models.pool import Job, RequestPool
from prewrite.task_models.retry import AttemptFailed, RetryPolicy
from prewrite.task_models.stream import Batch, Reply, StreamedTaskModel, Value, token_bound

Ask = Callable[[Any, Batch, Job], Awaitable[list[Reply]]]
DEFAULT_ADDRESS = "https://api.openai.com/v1"


class OpenAITaskModel(StreamedTaskModel):
    """See the module docstring.

    Args:
        model: the name that the server knows.
        address: base URL, usually ending in /v1; by default `OPENAI_BASE_URL`, else OpenAI's own. The key comes from
            `OPENAI_API_KEY` and nowhere else.
        chat: send prompts as user messages; off sends them bare to /completions. None: bare where the server can score
            labels after bare prompts, else chat.
        max_new_tokens: limit of `generate`, at least 1.
        label_scores: in chat, without a way to score labels exactly, offer `label_logprobs` read from the 20 likeliest
            next tokens; see `labels.scores_from_top`.
        concurrency: requests open at a time.
        prompts_per_request: bare prompts in one request, where the server takes lists.
        timeout: seconds per attempt.
    """

    def __init__(
        self,
        model: str,
        *,
        address: str | None = None,
        chat: bool | None = None,
        max_new_tokens: int = 64,
        label_scores: bool = False,
        concurrency: int = 16,
        prompts_per_request: int = 8,
        timeout: float = 120.0,
        retry: RetryPolicy | None = None,
    ):
        try:
            import openai
        except ImportError:
            raise MissingDependencyError("the openai backend needs `pip install 'prewrite[openai]'`") from None
        if not model:
            raise ConfigError("openai: the model name is empty; write e.g. openai:MODEL@http://127.0.0.1:8000/v1")
        for setting, value in (("max_new_tokens", max_new_tokens), ("prompts_per_request", prompts_per_request)):
            if value < 1:
                raise ConfigError(f"{setting} is {value}; it must be at least 1")
        self.model = model
        self.address = (address or os.environ.get("OPENAI_BASE_URL") or DEFAULT_ADDRESS).rstrip("/")
        self.root = self.address.removesuffix("/v1")
        self.name = f"openai:{model}@{urlsplit(self.address).netloc}"
        key = os.environ.get("OPENAI_API_KEY")
        if not key and self.address == DEFAULT_ADDRESS:
            raise ConfigError(
                "OPENAI_API_KEY is not set, and api.openai.com needs it; set it, or name your own server: "
                f"openai:{model}@http://127.0.0.1:8000/v1"
            )
        self.max_new_tokens, self.label_scores = max_new_tokens, label_scores
        self.prompts_per_request = prompts_per_request
        self._chat = chat
        self._facts: ServerFacts | None = None
        self._label_ids: dict[str, list[int]] = {}
        self._lock = threading.Lock()
        self._pool: RequestPool[openai.AsyncOpenAI] = RequestPool(
            f"the server at {self.address}",
            "Check that it runs and that the address is right, then run again: answers so far are cached",
            make_client=lambda: openai.AsyncOpenAI(
                base_url=self.address, api_key=key or "none", max_retries=0, timeout=timeout
            ),
            close_client=lambda client: client.close(),
            concurrency=concurrency,
            timeout=timeout,
            retry=retry or RetryPolicy(),
        )

    @property
    def facts(self) -> ServerFacts:
        """What the server can do; probed once."""
        with self._lock:
            if self._facts is None:
                self._facts = probe(self._pool.call, self.model, self.root, self._pool.server)
            return self._facts

    @property
    def chat(self) -> bool:
        """Whether prompts go as user messages. Raises `CapabilityError` if the server lacks what is asked for."""
        facts = self.facts
        if self._chat is None:
            return facts.chat and not (facts.completions and (facts.token_ids or facts.echo))
        if not (facts.chat if self._chat else facts.completions):
            endpoint = "/chat/completions" if self._chat else "/completions"
            raise CapabilityError(f"chat is {self._chat}, but {self.address} has no {endpoint}; leave chat unset")
        return self._chat

    @property
    def capabilities(self) -> frozenset[Capability]:
        """By what the probes saw."""
        facts, can = self.facts, {"generate"}
        if facts.json_schema if self.chat else facts.choice:
            can.add("constrained")
        exact = facts.tokenize and facts.completions if self.chat else True
        if exact and (facts.token_ids or facts.echo):
            can.add("label_logprobs")
        if exact and facts.echo:
            can.add("target_logprobs")
        if self.chat and self.label_scores and facts.top_logprobs:
            can.add("label_logprobs")
        return frozenset(can)  # type: ignore[arg-type]

    @property
    def identity(self) -> str:  # type: ignore[override]
        """Model, address, the server's version where it tells one, and settings; never the key."""
        facts = self.facts
        return (
            f"openai:{self.model}@{self.address}|{facts.version}|chat={self.chat}|greedy={facts.greedy}"
            f"|max_new_tokens={self.max_new_tokens}"
        )

    def stream(self, batch: Batch) -> Iterator[tuple[int, Reply]]:
        """See `StreamedTaskModel.stream`; several bare prompts share a request where the server takes lists."""
        ask, per_prompt = self._way(batch)
        size = max(1, self.prompts_per_request // per_prompt) if self.facts.lists and per_prompt else 1
        rows = range(len(batch.prompts))
        jobs = [rows[start : start + size] for start in range(0, len(rows), size)]

        async def request(client: Any, job: Job) -> list[Reply]:
            return await ask(client, batch, job)

        def sending(job: Job) -> None:
            for row in job:
                batch.sending(row, *self._bounds(batch, row, per_prompt))

        def failed(job: Job, billed: bool) -> None:
            for row in job:
                batch.failed(row, billed)

        for job, replies in self._pool.run(jobs, request, sending=sending, failed=failed):
            yield from zip(job, replies, strict=True)

    def warm(self) -> None:
        """Probe the server; it holds its model in memory already."""
        self._facts = self.facts

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    # ---- one request ----------------------------------------------------------------------------------------------

    def _way(self, batch: Batch) -> tuple[Ask, int]:
        """How to ask this batch, and how many texts a prompt becomes; 0 for chat, where each prompt is a request."""
        facts, chat = self.facts, self.chat
        if batch.method in ("generate", "constrained"):
            return (self._talk, 0) if chat else (self._write, 1)
        exact = facts.tokenize if chat else True
        if batch.method == "label_logprobs":
            if exact and facts.token_ids and all(len(self._ids_of(label)) == 1 for label in batch.labels):
                return self._score_next, 1
            if not (exact and facts.echo):
                return self._score_top, 0
        return self._score_echoed, len(batch.labels) or 1

    def _bounds(self, batch: Batch, row: int, per_prompt: int) -> tuple[int, int]:
        """The most tokens that one attempt at `row` can take: (input, output)."""
        prompt = batch.prompts[row]
        if batch.method in ("label_logprobs", "target_logprobs"):
            texts = batch.targets[row : row + 1] or batch.labels
            return (
                (sum(token_bound(prompt, text) for text in texts), len(texts))
                if per_prompt
                else (token_bound(prompt), 1)
            )
        return token_bound(prompt), self._limit(batch)

    def _limit(self, batch: Batch) -> int:
        return self.max_new_tokens if batch.method == "generate" else label_tokens(batch.labels)

    async def _talk(self, client: Any, batch: Batch, job: Job) -> list[Reply]:
        """Chat: one prompt, one choice."""
        fields = self.facts.settings(self._limit(batch))
        if batch.method == "constrained":
            fields["response_format"] = response_format(batch.labels)
        answer = await self._message(client, batch.prompts[job[0]], fields)
        text = answer.choices[0].message.content or ""
        return [_reply(read_label(text, batch.labels) if batch.method == "constrained" else text, answer)]

    async def _write(self, client: Any, batch: Batch, job: Job) -> list[Reply]:
        """Bare prompts, written on, freely or as one of the labels."""
        fields = self.facts.settings(self._limit(batch))
        written = {self._continuation(label): label for label in batch.labels}
        if batch.method == "constrained":
            fields["extra_body"] = {"structured_outputs": {"choice": list(written)}}
        answer = await self._complete(client, [batch.prompts[row] for row in job], fields)
        texts = [choice.text for choice in answer.choices]
        if batch.method == "constrained":
            if wrong := [text for text in texts if text not in written]:
                raise AttemptFailed(f"the answer {wrong[0][:80]!r} is not one of the labels", billed=True)
            texts = [written[text] for text in texts]
        return _replies(texts, answer)

    async def _score_next(self, client: Any, batch: Batch, job: Job) -> list[Reply]:
        """Labels of one token each: their log-probabilities after each prompt, in one pass."""
        ids = [self._ids_of(label)[0] for label in batch.labels]
        prompts = [await self._prompt(client, batch.prompts[row]) for row in job]
        answer = await self._complete(client, prompts, scoring_fields(ids))
        values: list[Value] = []
        for choice in answer.choices:
            shown = choice.logprobs.top_logprobs[0] if choice.logprobs and choice.logprobs.top_logprobs else {}
            missing = [token for token in ids if f"token_id:{token}" not in shown]
            if missing:
                raise AttemptFailed(f"the answer has no log-probability of token {missing[0]}", billed=True)
            values.append(tuple(shown[f"token_id:{token}"] for token in ids))
        return _replies(values, answer)

    async def _score_echoed(self, client: Any, batch: Batch, job: Job) -> list[Reply]:
        """Given texts of any length: each is sent behind its prompt, and echoed with its log-probabilities."""
        asked = [(row, text) for row in job for text in (batch.targets[row : row + 1] or batch.labels)]
        fields = {"max_tokens": 0, "temperature": 0, "echo": True, "logprobs": 1}
        whole = [await self._prompt(client, batch.prompts[row], text) for row, text in asked]
        answers = [
            await self._complete(client, part, fields) for part in ([whole] if self.facts.lists else _each(whole))
        ]
        choices = [choice for answer in answers for choice in answer.choices]
        scores = [
            self._tail(choice.logprobs, text, mean=batch.method == "target_logprobs")
            for choice, (_, text) in zip(choices, asked, strict=True)
        ]
        if batch.targets:
            return _replies(scores, *answers)
        width = len(batch.labels)
        return _replies([tuple(scores[at : at + width]) for at in range(0, len(scores), width)], *answers)

    async def _score_top(self, client: Any, batch: Batch, job: Job) -> list[Reply]:
        """Chat without a way to score given texts: read the labels from the likeliest next tokens."""
        prompt = batch.prompts[job[0]]
        fields = {"logprobs": True, "top_logprobs": self.facts.top_logprobs, **self.facts.settings(1)}
        answer = await self._message(client, prompt, fields)
        told = answer.choices[0].logprobs
        if not told or not told.content:
            raise AttemptFailed("the answer has no log-probabilities", billed=True)
        top = [(entry.token, entry.logprob) for entry in told.content[0].top_logprobs]
        return [_reply(scores_from_top(top, batch.labels, prompt), answer)]

    async def _complete(self, client: Any, prompts: Sequence[str | list[int]], fields: dict[str, Any]) -> Any:
        """POST /completions; one choice per prompt, in order."""
        prompt = list(prompts) if len(prompts) > 1 else prompts[0]
        answer = await send(client.completions.create(model=self.model, prompt=prompt, **fields))
        choices = sorted(answer.choices or [], key=lambda choice: choice.index)
        if [choice.index for choice in choices] != list(range(len(prompts))):
            raise AttemptFailed(f"{len(prompts)} prompts got {len(choices)} choices", billed=True)
        answer.choices = choices
        return answer

    async def _message(self, client: Any, prompt: str, fields: dict[str, Any]) -> Any:
        """POST /chat/completions with one user message; exactly one choice."""
        messages = [{"role": "user", "content": prompt}]
        answer = await send(client.chat.completions.create(model=self.model, messages=messages, **fields))
        if len(answer.choices or []) != 1:
            raise AttemptFailed(f"one prompt got {len(answer.choices or [])} choices", billed=True)
        return answer

    async def _prompt(self, client: Any, prompt: str, text: str | None = None) -> str | list[int]:
        """What /completions is sent, `text` behind it: bare text, or in chat the token ids of the chat template."""
        if not self.chat:
            return prompt + (self._continuation(text) if text is not None else "")
        ids = await tokenize(client, self.root, self.model, prompt, chat=True)
        if text is None:
            return ids
        return ids + await tokenize(client, self.root, self.model, self._continuation(text))

    def _tail(self, told: Any, text: str, *, mean: bool) -> float:
        """Log-probability of the tokens at the end that spell `text`, summed or averaged."""
        ending, spelled, count = self._continuation(text), "", 0
        while len(spelled) < len(ending) and told and count < len(told.tokens):
            count += 1
            spelled = told.tokens[-count] + spelled
        if spelled != ending:
            raise TaskModelError(
                f"{self.address} splits the prompt and {ending!r} into tokens that do not part between them (last: "
                f"{spelled!r}), so the text cannot be scored; use decoding 'constrained' or 'generate'"
            )
        logprobs = told.token_logprobs[-count:]
        return float(sum(logprobs) / (count if mean else 1))

    def _continuation(self, text: str) -> str:
        return continuation(text, chat=self.chat)

    def _ids_of(self, label: str) -> list[int]:
        """Token ids of a label as the continuation of a prompt; asked once."""
        text = self._continuation(label)
        if text not in self._label_ids:
            self._label_ids[text] = self._pool.call(lambda client: tokenize(client, self.root, self.model, text))
        return self._label_ids[text]


def _each(texts: Sequence[str | list[int]]) -> list[list[str | list[int]]]:
    return [[text] for text in texts]


def _reply(value: Value, answer: Any) -> Reply:
    return _replies([value], answer)[0]


def _replies(values: Sequence[Value], *answers: Any) -> list[Reply]:
    """Replies of one request; its tokens are counted on the first."""
    if any(answer.usage is None for answer in answers):
        return [Reply(value) for value in values]
    tokens_in = sum(answer.usage.prompt_tokens or 0 for answer in answers)
    tokens_out = sum(answer.usage.completion_tokens or 0 for answer in answers)
    return [Reply(values[0], tokens_in, tokens_out), *(Reply(value, 0, 0) for value in values[1:])]
