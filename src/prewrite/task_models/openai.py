"""A model behind any OpenAI-compatible server.

vLLM, llama.cpp, LM Studio, Ollama's /v1 and hosted APIs share the endpoints and little else, so what this one can do
is probed (`openai_server.py`) and remembered for a day. Scores of given labels come from vLLM's `logprob_token_ids`
for labels of one token and from echoed log-probabilities otherwise; both are exact.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from prewrite.errors import CapabilityError, ConfigError, StorageError, TaskModelError
from prewrite.lm.tokens import SENT_BARE, continuation
from prewrite.task_models.addresses import OPENAI_ADDRESS, is_private, openai_address
from prewrite.task_models.base import Capability
from prewrite.task_models.known_servers import keep, recall
from prewrite.task_models.openai_api import Body, OpenAIApi, Stamp, identity_of, model_is_known
from prewrite.task_models.openai_facts import ServerFacts
from prewrite.task_models.openai_requests import Requests
from prewrite.task_models.openai_server import COUNTING, probe
from prewrite.task_models.pool import Job, RequestPool
from prewrite.task_models.retry import Refused, RetryPolicy
from prewrite.task_models.server import Connection
from prewrite.task_models.stream import Batch, NoAnswer, Replies, Reply, StreamedTaskModel

logger = logging.getLogger(__name__)

SLOW_PROBES = 3.0
"""Seconds after which a line says what is being waited for."""


class OpenAITaskModel(StreamedTaskModel):
    """See the module docstring.

    Args:
        model: the name that the server knows.
        address: base URL, usually ending in /v1; by default `OPENAI_BASE_URL`, else OpenAI's own. The key comes from
            `OPENAI_API_KEY` and nowhere else.
        chat: send prompts as user messages; off sends them bare to /completions. None: bare where the server can score
            labels after bare prompts, else chat.
        max_new_tokens: limit of `generate`, at least 1; of labels too where the model thinks before them.
        label_scores: in chat, without a way to score labels exactly, offer `label_logprobs` read from the likeliest
            next tokens, 20 or as many as the server gives; see `labels.scores_from_top`.
        concurrency: requests open at a time.
        prompts_per_request: bare prompts in one request, where the server takes lists.
        timeout: seconds per attempt.
        remember: use what was found out about this server and model within the last day.
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
        remember: bool = True,
        retry: RetryPolicy | None = None,
    ):
        if not model:
            raise ConfigError("openai: the model name is empty; write e.g. openai:MODEL@http://127.0.0.1:8000/v1")
        for setting, value in (("max_new_tokens", max_new_tokens), ("prompts_per_request", prompts_per_request)):
            if value < 1:
                raise ConfigError(f"{setting} is {value}; it must be at least 1")
        self.model, self.address = model, openai_address(model, address)
        self.name = f"openai:{model}@{urlsplit(self.address).netloc}"
        connection = Connection(self.address, key_variable="OPENAI_API_KEY", backend="openai")
        if not connection.has_key and self.address == OPENAI_ADDRESS:
            raise ConfigError(
                "OPENAI_API_KEY is not set, and api.openai.com needs it; set it, or name your own server: "
                f"openai:{model}@http://127.0.0.1:8000/v1"
            )
        self.max_new_tokens, self.label_scores = max_new_tokens, label_scores
        self.prompts_per_request, self.remember = prompts_per_request, remember
        self._api = OpenAIApi(connection, model)
        self._chat = chat
        self._facts: ServerFacts | None = None
        self._label_ids: dict[str, list[int]] = {}
        self._lock = threading.Lock()
        self._warned = False
        self._pool: RequestPool[Any] = RequestPool(
            f"the server at {self.address}",
            "Check that it runs and that the address is right, then run again: answers so far are cached",
            make_client=lambda: connection.open(timeout),
            close_client=lambda client: client.aclose(),
            concurrency=concurrency,
            timeout=timeout,
            retry=retry or RetryPolicy(),
        )

    @property
    def facts(self) -> ServerFacts:
        """What the server can do; found out once."""
        with self._lock:
            if self._facts is None:
                self._facts = self._remembered() or self._probed()
            return self._facts

    @property
    def chat(self) -> bool:
        """Whether prompts go as user messages. Raises `CapabilityError` if the server lacks what is asked for."""
        facts = self.facts
        if self._chat is None:
            return facts.chat and not (facts.completions and (facts.token_ids or facts.echo))
        if not (facts.chat if self._chat else facts.completions):
            endpoint, feature = ("/chat/completions", "chat") if self._chat else ("/completions", "completions")
            raise CapabilityError(
                f"chat is {self._chat}, but {self.address} has no {endpoint} ({facts.why_not.get(feature)}); "
                "leave chat unset"
            )
        return self._chat

    @property
    def capabilities(self) -> frozenset[Capability]:
        """By what the probes saw. Raises `CapabilityError` where `label_scores` is asked for and cannot be had."""
        facts, can = self.facts, set[Capability]({"generate"})
        if facts.schema if self.chat else facts.choice:
            can.add("constrained")
        exact = facts.tokenize and facts.completions if self.chat else True
        if exact and (facts.token_ids or facts.echo):
            can.add("label_logprobs")
        if exact and facts.echo:
            can.add("target_logprobs")
        if self.label_scores and "label_logprobs" not in can:
            if not (self.chat and facts.top_logprobs):
                reason = facts.why_not.get("top_logprobs", "prompts are sent bare")
                raise CapabilityError(
                    f"label_scores needs log-probabilities in chat, which {self.address} does not give ({reason}); "
                    "leave label_scores out, and use decoding 'constrained' or 'generate'"
                )
            can.add("label_logprobs")
        if self.chat:
            can.add("turns")
        return frozenset(can)

    def why_not(self, capability: Capability) -> str:
        """Why a capability is not offered."""
        facts, reasons = self.facts, self.facts.why_not
        if capability == "turns":
            return SENT_BARE if facts.chat else f"no /chat/completions: {reasons.get('chat')}"
        if capability == "constrained":
            return reasons.get("schema" if self.chat else "choice", "")
        if not facts.completions:
            scored = f"no /completions: {reasons['completions']}"
        elif self.chat and (facts.echo or facts.token_ids):
            scored = f"in chat it takes /tokenize: {reasons['tokenize']}"
        else:
            scored = reasons.get("echo", "")
        if capability == "label_logprobs" and self.chat and facts.top_logprobs:
            return f"{scored}; label_scores=true reads labels from the {facts.top_logprobs} likeliest tokens"
        return scored

    @property
    def identity(self) -> str:  # type: ignore[override]
        """Model, address, what the server tells of the model, and settings; never the key."""
        facts = self.facts
        parts = [f"openai:{self.model}@{self.address}", identity_of(facts.told, self._stamp), f"chat={self.chat}"]
        parts += [f"dropped={','.join(sorted(facts.dropped))}"] if facts.dropped else []
        parts += [f"top={facts.top_logprobs}"] if self.label_scores and facts.top_logprobs else []
        parts += [f"schema={facts.schema}"] if self.chat and facts.schema == "json_object" else []
        return "|".join([*parts, f"max_new_tokens={self.max_new_tokens}"])

    @property
    def notes(self) -> list[str]:
        """What a reader of the results should know of this server."""
        facts, found = self.facts, []
        if not model_is_known(facts.told, facts.stamp, self.model):
            found.append(
                "the server tells nothing of its model but the name: another model behind it would not be noticed, "
                "and cached answers would be the old one's (`prewrite cache clear` after a change)"
            )
        if facts.dropped:
            found.append(f"the server refuses {', '.join(facts.dropped)}, so it is asked without")
        if not facts.greedy:
            found.append("answers are not greedy, since the model refuses temperature 0; the first one given is kept")
        if self.chat and facts.thinks:
            found.append("the model thinks before it answers; its thoughts count towards max_new_tokens")
        return found

    def stream(self, batch: Batch) -> Replies:
        """See `StreamedTaskModel.stream`; several bare prompts share a request where the server takes lists."""
        if not batch.prompts:
            return
        self._check_model()
        requests = Requests(
            self._api, self.facts, chat=self.chat, max_new_tokens=self.max_new_tokens, seen=self._check_stamp
        )
        ask, per_prompt = requests.way(batch, self._ids_of)
        many = self.facts.lists and per_prompt and not batch.sampling  # a request has one seed
        size = max(1, self.prompts_per_request // per_prompt) if many else 1
        rows = range(len(batch.prompts))
        jobs = [rows[start : start + size] for start in range(0, len(rows), size)]

        async def request(client: Any, job: Job) -> list[Reply]:
            return await ask(client, batch, job)

        def sending(job: Job) -> None:
            for row in job:
                batch.sending(row, *requests.bounds(batch, row, per_prompt))

        def failed(job: Job, billed: bool) -> None:
            for row in job:
                batch.failed(row, billed)

        def refused(error: Refused) -> list[Reply]:
            remedy = "; raise the server's context length" if error.too_long else ""
            remedy = "; raise max_new_tokens" if error.cut else remedy
            return [Reply(NoAnswer(f"the server refused it: {error}{remedy}"), 0, 0)]

        for job, replies in self._pool.run(jobs, request, sending=sending, failed=failed, refused=refused):
            yield from zip(job, replies, strict=True)

    def load(self) -> None:
        """Find out what the server can do, and wait while it loads its model."""
        self._facts = self.facts

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    # ---- the model behind the name --------------------------------------------------------------------------------

    def _probed(self) -> ServerFacts:
        waiting = threading.Timer(
            SLOW_PROBES, lambda: logger.warning("asking %s what it can do ...", self._pool.server)
        )
        waiting.daemon = True
        waiting.start()
        try:
            facts = probe(self._pool.call, self._api, self._pool.server)
        finally:
            waiting.cancel()
        if self.remember:
            try:
                keep(self.address, self.model, facts.as_dict())
            except StorageError as error:
                logger.warning("what the server can do is not remembered: %s", error)
        return facts

    def _remembered(self) -> ServerFacts | None:
        """What was found out within the last day, if the server still tells the same of itself."""
        kept = recall(self.address, self.model) if self.remember else None
        if kept is None:
            return None
        try:
            facts = ServerFacts.from_dict(kept)
        except (KeyError, TypeError):
            return None
        if self._pool.call(self._api.about_model) != facts.told:
            return None
        settings = facts.settings(1, chat=facts.chat)
        try:
            if facts.chat:
                answer = self._pool.call(lambda client: self._api.talk(client, "Say yes.", settings))
            else:
                answer = self._pool.call(lambda client: self._api.complete(client, [COUNTING], settings))
        except Refused:
            return None
        return facts if Stamp.of(answer) == (facts.chat_stamp if facts.chat else facts.completions_stamp) else None

    @property
    def _stamp(self) -> Stamp:
        return self.facts.chat_stamp if self.chat else self.facts.completions_stamp

    def _check_model(self) -> None:
        """Raise `TaskModelError` if the server tells something else of its model than at the start.

        That it tells nothing at the moment is no sign of another model: the requests that follow will show why.
        """
        told = self.facts.told
        try:
            now = self._pool.call(lambda client: self._api.about_model(client, tuple(told))) if told else {}
        except TaskModelError:
            return
        for name in told.keys() & now.keys():
            if now[name] != told[name]:
                raise self._changed(f"/{name} told {_difference(told[name], now[name])}")

    def _check_stamp(self, answer: Body) -> bool:
        """Whether the model of the first answer wrote this one too. Raises `TaskModelError` if another one did.

        Hosted APIs spread requests over configurations that bear different fingerprints: there a run goes on, and
        answers of another fingerprint are counted and not kept.
        """
        known = self.facts.chat_stamp if "message" in answer["choices"][0] else self.facts.completions_stamp
        found = Stamp.of(answer)
        difference = known.differs(found)
        if not difference:
            return True
        if is_private(self.address) or (known.model and found.model and known.model != found.model):
            raise self._changed(difference)
        if not self._warned:
            logger.warning("%s: %s; answers of others than the first are counted and not kept", self.name, difference)
            self._warned = True
        return False

    def _changed(self, difference: str) -> TaskModelError:
        return TaskModelError(
            f"the server at {self.address} answers with another model under the name {self.model!r}: {difference}. "
            "Answers so far are cached as the old one's. Run again to ask the new one from the start"
        )

    def _ids_of(self, label: str) -> list[int]:
        """Token ids of a label as the continuation of a prompt; asked once."""
        text = continuation(label, chat=self.chat)
        if text not in self._label_ids:
            self._label_ids[text] = self._pool.call(lambda client: self._api.tokenize(client, text))
        return self._label_ids[text]


def _difference(before: Any, now: Any) -> str:
    """The first field that changed, in words."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in sorted({*before, *now}):
            if before.get(name) != now.get(name):
                return f"{name} {before.get(name)!r}, and now {now.get(name)!r}"
    return f"{before!r}, and now {now!r}"
