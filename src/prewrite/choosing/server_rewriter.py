"""A rewriter on a server: a model that is asked for other wordings of an instruction, and never trained.

It is sent the meta prompt of the paper with the instruction in it, and nothing of the data. What it is asked is
counted apart from the task model's questions.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing

from prewrite.errors import CapabilityError
from prewrite.rewriter.meta_prompts import build_meta_prompt, extract_rewrite, format_rewriter_query
from prewrite.task_models.counting import CountingTaskModel
from prewrite.task_models.registry import open_task_model, parse_task_model
from prewrite.task_models.stream import Batch, NoAnswer, Sampling, stream

logger = logging.getLogger(__name__)

TEMPERATURE = 1.0
"""As in the paper (section 3.1)."""
MAX_NEW_TOKENS = 1024
"""Wordings are short; the rest is for a model that thinks before it writes."""
SEEDS = 1000
"""Seeds of the server that belong to one of ours."""


class ServerRewriter:
    """A `Proposer` that asks `model` for rewrites; `chat` says whether it is sent messages or text to go on with."""

    def __init__(self, model: CountingTaskModel, *, chat: bool = True):
        self.model, self.chat = model, chat

    @classmethod
    def open(cls, name: str) -> ServerRewriter:
        """The rewriter `openai:MODEL@URL` or `ollama:MODEL`, in chat where the server offers that.

        Raises `ConfigError` for a name that is none, `TaskModelError` where no server answers.
        """
        spec = parse_task_model(name)
        options = {"max_new_tokens": MAX_NEW_TOKENS}
        model = open_task_model(spec, options=options | {"chat": True})
        try:
            chat = "turns" in model.capabilities
        except CapabilityError:  # a server that only goes on with a text
            model, chat = open_task_model(spec, options=options | {"chat": False}), False
        return cls(CountingTaskModel(model), chat=chat)

    def greedy(self, instruction: str) -> str:
        """The likeliest rewrite, as far as the model takes temperature 0; empty if there was none."""
        return self._ask(Batch("generate", (self._query(instruction),)))[0]

    def sample_rewrites(self, instruction: str, count: int, *, seed: int) -> list[str]:
        """`count` rewrites at temperature 1, duplicates and empty ones included.

        Servers that honour seeds draw the same again for the same `seed`.
        """
        drawn = tuple(Sampling(TEMPERATURE, (SEEDS * seed + number) % 2**31) for number in range(count))
        return self._ask(Batch("generate", (self._query(instruction),) * count, sampling=drawn))

    def _query(self, instruction: str) -> str:
        asked = build_meta_prompt(instruction)
        return asked if self.chat else format_rewriter_query(asked)

    def _ask(self, batch: Batch) -> list[str]:
        rewrites, missing = [""] * len(batch.prompts), []
        with closing(stream(self.model, batch)) as replies:
            for row, reply in replies:
                if isinstance(reply.value, NoAnswer):
                    missing.append(reply.value.reason)
                else:
                    rewrites[row] = extract_rewrite(str(reply.value))
        _warn(self.model.name, missing, len(rewrites))
        return rewrites


def _warn(name: str, missing: Sequence[str], asked: int) -> None:
    if missing:
        logger.warning(
            "%s gave no answer to %d of %d requests for a rewrite: %s", name, len(missing), asked, missing[0]
        )
