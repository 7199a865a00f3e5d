"""One batch of questions as requests to an OpenAI-compatible server, and its answers read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from prewrite.errors import TaskModelError
from prewrite.lm.tokens import bare_text, continuation
from prewrite.task_models.labels import label_in, label_tokens, scores_from_top
from prewrite.task_models.openai_api import Body, OpenAIApi, response_format, said, scoring_fields, top_of
from prewrite.task_models.openai_facts import ServerFacts
from prewrite.task_models.pool import Job
from prewrite.task_models.replies import is_cut, text_of, tokens_of
from prewrite.task_models.retry import AttemptFailed, Refused
from prewrite.task_models.stream import Batch, NoAnswer, Reply, Value, is_answer
from prewrite.task_models.token_counts import cut_short, token_bound
from prewrite.types import Prompt

_KNOWN = "answered by the known model"
Ask = Callable[[Any, Batch, Job], Awaitable[list[Reply]]]


class Requests:
    """How one server is asked: `facts` says what it can do, `chat` whether prompts are messages.

    `seen` is called with every answer's body before it is read, and says whether it is the known model's.
    """

    def __init__(
        self,
        api: OpenAIApi,
        facts: ServerFacts,
        *,
        chat: bool,
        max_new_tokens: int,
        seen: Callable[[Body], bool],
    ):
        self.api, self.facts, self.chat, self.max_new_tokens, self._seen = api, facts, chat, max_new_tokens, seen

    def way(self, batch: Batch, label_ids: Callable[[str], Sequence[int]]) -> tuple[Ask, int]:
        """How to ask this batch, and how many texts a prompt becomes; 0 where each prompt is a request of its own."""
        facts = self.facts
        if batch.method in ("generate", "constrained"):
            return (self._talk, 0) if self.chat else (self._write, 1)
        exact = facts.tokenize if self.chat else True
        if batch.method == "label_logprobs":
            if exact and facts.token_ids and all(len(label_ids(label)) == 1 for label in batch.labels):
                ids = [label_ids(label)[0] for label in batch.labels]

                async def score_next(client: Any, batch: Batch, job: Job) -> list[Reply]:
                    return await self._score_next(client, batch, job, ids)

                return score_next, 1
            if not (exact and facts.echo):
                return self._score_top, 0
        return self._score_echoed, len(batch.labels) or 1

    def bounds(self, batch: Batch, row: int, per_prompt: int) -> tuple[int, int]:
        """The most tokens that one attempt at `row` can take: (input, output)."""
        prompt = batch.prompts[row]
        if batch.method in ("generate", "constrained"):
            return token_bound(prompt), self._limit(batch)
        if not per_prompt:
            return token_bound(prompt), 1
        texts = batch.targets[row : row + 1] or batch.labels
        return sum(token_bound(prompt, text) for text in texts), len(texts)

    def _limit(self, batch: Batch) -> int:
        """Output tokens. A label gets as many as free text where the model may think before it."""
        return max(self.max_new_tokens, label_tokens(batch.labels) if batch.method == "constrained" else 0)

    def _drawn(self, batch: Batch, job: Job) -> dict[str, Any]:
        """How the answer is drawn, less what the server refuses to be told; nothing for a greedy one."""
        drawn = batch.sampling[job[0]]._asdict() if batch.sampling else {}
        return {name: value for name, value in drawn.items() if name not in self.facts.dropped}

    async def _talk(self, client: Any, batch: Batch, job: Job) -> list[Reply]:
        """Chat: one prompt, one choice."""
        limit, labels = self._limit(batch), batch.labels
        fields = self.facts.settings(limit, chat=True) | self._drawn(batch, job)
        if batch.method == "constrained":
            fields["response_format"] = response_format(labels, self.facts.schema)
        answer = await self._asked(self.api.talk(client, batch.prompts[job[0]], fields))
        text = said(answer, limit)
        if batch.method == "constrained" and not isinstance(text, NoAnswer):
            text = self._label(text, label_in(text, labels), answer["choices"][0], limit)
        return self._replies(batch, job, [text], answer)

    async def _write(self, client: Any, batch: Batch, job: Job) -> list[Reply]:
        """Bare prompts, written on, freely or as one of the labels."""
        limit = self._limit(batch)
        fields = self.facts.settings(limit, chat=False) | self._drawn(batch, job)
        written = {self._continuation(label): label for label in batch.labels}
        if batch.method == "constrained":
            fields["structured_outputs"] = {"choice": list(written)}
        answer = await self._complete(client, [bare_text(batch.prompts[row]) for row in job], fields)
        texts: list[str | NoAnswer] = []
        for choice in answer["choices"]:
            text = text_of(choice.get("text"), limit=limit, finish=choice.get("finish_reason"))
            if batch.method == "constrained" and not isinstance(text, NoAnswer):
                text = self._label(text, written.get(text), choice, limit)
            texts.append(text)
        return self._replies(batch, job, texts, answer)

    async def _score_next(self, client: Any, batch: Batch, job: Job, ids: Sequence[int]) -> list[Reply]:
        """Labels of one token each: their log-probabilities after each prompt, in one pass."""
        prompts = [await self._prompt(client, batch.prompts[row]) for row in job]
        fields = self.facts.settings(1, chat=False) | scoring_fields(ids)
        answer = await self._complete(client, prompts, fields)
        values: list[Value] = []
        for choice in answer["choices"]:
            told = choice.get("logprobs") or {}
            shown = (told.get("top_logprobs") or [{}])[0] or {}
            missing = [token for token in ids if shown.get(f"token_id:{token}") is None]
            if missing:
                raise AttemptFailed(f"the answer has no log-probability of token {missing[0]}", billed=True)
            values.append(tuple(float(shown[f"token_id:{token}"]) for token in ids))
        return self._replies(batch, job, values, answer)

    async def _score_echoed(self, client: Any, batch: Batch, job: Job) -> list[Reply]:
        """Given texts of any length: each is sent behind its prompt, and echoed with its log-probabilities."""
        asked = [(row, text) for row in job for text in (batch.targets[row : row + 1] or batch.labels)]
        fields = self.facts.settings(1, chat=False) | {"echo": True, "logprobs": 1}
        whole = [await self._prompt(client, batch.prompts[row], text) for row, text in asked]
        parts = [whole] if self.facts.lists else [[text] for text in whole]
        answers = [await self._complete(client, part, fields) for part in parts]
        choices = [choice for answer in answers for choice in answer["choices"]]
        scores = [
            self._tail(choice.get("logprobs") or {}, text, mean=bool(batch.targets))
            for choice, (_, text) in zip(choices, asked, strict=True)
        ]
        values: list[Value] = list(scores)
        if not batch.targets:
            width = len(batch.labels)
            values = [tuple(scores[at : at + width]) for at in range(0, len(scores), width)]
        return self._replies(batch, job, values, *answers, texts_per_prompt=len(batch.labels) or 1)

    async def _score_top(self, client: Any, batch: Batch, job: Job) -> list[Reply]:
        """Chat without a way to score given texts: read the labels from the likeliest next tokens."""
        prompt = batch.prompts[job[0]]
        fields = {"logprobs": True, "top_logprobs": self.facts.top_logprobs} | self.facts.settings(1, chat=True)
        answer = await self._asked(self.api.talk(client, prompt, fields))
        top = top_of(answer)
        if not top:
            raise AttemptFailed("the answer has no log-probabilities", billed=True)
        return self._replies(batch, job, [scores_from_top(top, batch.labels, str(prompt))], answer)

    async def _complete(self, client: Any, prompts: Sequence[str | list[int]], fields: Mapping[str, Any]) -> Body:
        return await self._asked(self.api.complete(client, prompts, fields))

    async def _asked(self, request: Awaitable[Body]) -> Body:
        answer = await request
        return {**answer, _KNOWN: self._seen(answer)}

    async def _prompt(self, client: Any, prompt: Prompt, text: str | None = None) -> str | list[int]:
        """What /completions is sent, `text` behind it: bare text, or in chat the token ids of the chat template."""
        if not self.chat:
            return bare_text(prompt) + (self._continuation(text) if text is not None else "")
        ids = await self.api.tokenize(client, prompt, chat=True)
        return ids if text is None else ids + await self.api.tokenize(client, self._continuation(text))

    def _tail(self, told: Mapping[str, Any], text: str, *, mean: bool) -> float:
        """Log-probability of the echoed tokens at the end that spell `text`, summed or averaged."""
        end = len(told.get("tokens") or []) - self.facts.echo_extra
        tokens, logprobs = (told.get("tokens") or [])[:end], (told.get("token_logprobs") or [])[:end]
        ending, spelled, count = self._continuation(text), "", 0
        while len(spelled) < len(ending) and count < len(tokens):
            count += 1
            spelled = tokens[-count] + spelled
        if spelled != ending:
            raise TaskModelError(
                f"{self.api.address} splits the prompt and {ending!r} into tokens that do not part between them "
                f"({spelled!r}), so the text cannot be scored; use decoding 'constrained' or 'generate'"
            )
        scored = logprobs[-count:]
        if len(scored) < count or not all(isinstance(value, int | float) for value in scored):
            raise AttemptFailed(f"the answer lacks log-probabilities of {ending!r}", billed=True)
        return float(sum(scored) / (count if mean else 1))

    @staticmethod
    def _label(text: str, label: str | None, choice: Mapping[str, Any], limit: int) -> str | NoAnswer:
        """The label that the answer `text` was limited to."""
        if label is not None:
            return label
        if is_cut(choice.get("finish_reason")):
            return NoAnswer(f"ran out of its {limit} tokens before it wrote a whole label; raise max_new_tokens")
        raise AttemptFailed(f"the answer {text[:80]!r} is not one of the labels it was limited to", billed=True)

    @staticmethod
    def _replies(
        batch: Batch, job: Job, values: Sequence[Value | NoAnswer], *answers: Body, texts_per_prompt: int = 1
    ) -> list[Reply]:
        """Replies of one request; its tokens are counted on the first."""
        for value in values:
            if not isinstance(value, NoAnswer) and not is_answer(value, batch):
                raise AttemptFailed(f"{str(value)[:80]!r} is no answer to {batch.method!r}", billed=True)
        counts = [tokens_of(answer.get("usage")) for answer in answers]
        read, written = _total([count for count, _ in counts]), _total([count for _, count in counts])
        if cut := cut_short([batch.prompts[row] for row in job] * texts_per_prompt, read):
            if len(job) > 1:
                raise Refused(cut)  # asked again row by row, to find out whose prompt it was
            values = [NoAnswer(f"{cut}; raise the server's context length")]
        first = Reply(values[0], read, written, known_model=all(answer[_KNOWN] for answer in answers))
        others = replace(first, input_tokens=read and 0, output_tokens=written and 0)
        return [first, *(replace(others, value=value) for value in values[1:])]

    def _continuation(self, text: str) -> str:
        return continuation(text, chat=self.chat)


def _total(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
