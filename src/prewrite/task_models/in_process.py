"""What task models in this process have in common: they hold the tokenizer, so they know how long a prompt is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from prewrite.errors import CapabilityError, ConfigError
from prewrite.lm.tokens import SENT_BARE, chat_text, continuation_ids, has_chat_template, prompt_ids
from prewrite.task_models.base import Capability, Method
from prewrite.task_models.stream import no_answer
from prewrite.types import Prompt


class InProcessTaskModel:
    """A backend that turns text into tokens itself. A subclass loads the model, then sets these attributes."""

    name: str
    methods: frozenset[Method]
    """How it can be asked."""
    tokenizer: Any
    chat: bool
    context: float
    """How many tokens the model reads at once, its answer included; infinity where it does not say."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Its methods; in chat it takes turns as well."""
        return frozenset({*self.methods, "turns"} if self.chat else self.methods)

    def why_not(self, capability: Capability) -> str:
        """Why a capability is not offered, where that depends on a setting."""
        return SENT_BARE if capability == "turns" else ""

    def settings_identity(self, *settings: object) -> str:
        """The part of `identity` that follows the model: `settings`, and what a chat looks like.

        Some chat templates write the day's date, so a chat is told by what it looks like today.
        """
        chat = hashlib.sha256(chat_text(self.tokenizer, "").encode()).hexdigest()[:8] if self.chat else "off"
        return "|".join(map(str, (*settings, f"chat={chat}")))

    def prompt_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """Tokens of each prompt as the model reads it."""
        return [len(ids) for ids in prompt_ids(self.tokenizer, prompts, chat=self.chat)]

    def text_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text that follows a prompt; of what `generate` wrote, without the end of sequence."""
        return [len(self.answer_ids(text)) for text in texts]

    def constrained(self, prompts: Sequence[Prompt], labels: Sequence[str]) -> list[str]:
        """Not offered: labels are scored exactly, which a grammar only approximates."""
        raise CapabilityError(f"{self.name} has no constrained decoding; use decoding 'likelihood'")

    def answer_ids(self, text: str) -> list[int]:
        """Token ids of a label or target as it follows a prompt."""
        return continuation_ids(self.tokenizer, text, chat=self.chat)

    def fitting_ids(self, prompts: Sequence[Prompt], answers: Sequence[int]) -> list[list[int]]:
        """Token ids of prompts, each with room for as many tokens of an answer as `answers` says.

        Raises `NoAnswerError` for the first prompt that is longer than the model reads at once: beyond that its
        answers are worth nothing, and engines cut or crash.
        """
        token_ids = prompt_ids(self.tokenizer, prompts, chat=self.chat)
        for row, (ids, answer) in enumerate(zip(token_ids, answers, strict=True)):
            if len(ids) + answer > self.context:
                reason = (
                    f"its {len(ids):,} tokens and {answer:,} for the answer are more than the {self.context:,.0f} "
                    "that the model reads at once; shorten the input or instruction, or take a model that reads more"
                )
                raise no_answer(self.name, prompts, row, reason)
        return token_ids


def check_max_new_tokens(limit: int) -> None:
    """Raise `ConfigError` for a limit of `generate` that leaves no token."""
    if limit < 1:
        raise ConfigError(f"max_new_tokens is {limit}; it must be at least 1")


def check_chat(chat: bool, tokenizer: Any, model: str) -> None:
    """Raise `ConfigError` if `chat` is on for a model without a chat template."""
    if chat and not has_chat_template(tokenizer):
        raise ConfigError(f"chat is on, but the tokenizer of {model!r} has no chat template; turn it off")
