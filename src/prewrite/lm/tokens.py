"""Text as tokens, by one rule for the rewriter and for every task model: chat turns, prompts, and answers after them.

A tokenizer here is anything with the interface of those of transformers; neither that nor torch is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from prewrite.errors import CapabilityError, ConfigError
from prewrite.types import Prompt, messages_of

SENT_BARE = "prompts are sent bare; chat=true puts them in the model's chat template"
"""Why a task model takes no turns."""


def has_chat_template(tokenizer: Any) -> bool:
    """Whether the model was tuned to chat and its tokenizer says in which form."""
    return bool(getattr(tokenizer, "chat_template", None))


def chat_text(tokenizer: Any, prompt: Prompt) -> str:
    """A user message, or a conversation, in the model's chat template, up to where the assistant's turn starts.

    Thinking is off where the template has the switch: an answer follows the header, not a thought. No system message
    is passed: some templates refuse one, and one that writes its own keeps the model at what it was tuned with.
    """
    messages = messages_of(prompt)
    return str(
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    )


def bare_text(prompt: Prompt) -> str:
    """A prompt that is sent without a chat template. Raises `CapabilityError` for a conversation."""
    if isinstance(prompt, str):
        return prompt
    raise CapabilityError(f"a prompt in turns cannot be answered: {SENT_BARE}")


def prompt_ids(tokenizer: Any, prompts: Sequence[Prompt], *, chat: bool) -> list[list[int]]:
    """Token ids of prompts, bare or each in the chat template; an empty prompt is the token that a text starts with.

    A bare prompt gets the special tokens that the tokenizer was trained with; a chat template writes them itself.
    """
    if not prompts:
        return []
    texts = [chat_text(tokenizer, prompt) if chat else bare_text(prompt) for prompt in prompts]
    rows = [list(ids) for ids in tokenizer(texts, add_special_tokens=not chat)["input_ids"]]
    if all(rows):
        return rows
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.pad_token_id
    return [row or [start] for row in rows]


def continuation(text: str, *, chat: bool) -> str:
    """An answer as it follows a prompt: after a bare prompt it follows a space, after a chat header it starts."""
    return text.strip() if chat else f" {text.strip()}"


def continuation_ids(tokenizer: Any, text: str, *, chat: bool) -> list[int]:
    """Token ids of `continuation`."""
    return list(tokenizer(continuation(text, chat=chat), add_special_tokens=False)["input_ids"])


def decode(tokenizer: Any, rows: Sequence[Sequence[int]], end_ids: Sequence[int]) -> list[str]:
    """The text of each row, without the token that ends it and without special tokens."""
    written = [ids[:-1] if ids and ids[-1] in end_ids else ids for ids in rows]
    return [tokenizer.decode(ids, skip_special_tokens=True) for ids in written]


def give_pad_token(tokenizer: Any) -> None:
    """Let a tokenizer that has no pad token pad with its end of sequence; padded places are masked wherever they are.

    Raises `ConfigError` where it has neither.
    """
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ConfigError("the tokenizer has neither a pad token nor an end of sequence; set tokenizer.pad_token")
        tokenizer.pad_token = tokenizer.eos_token


def end_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Every token that ends what the model writes, in ascending order.

    These are the tokenizer's end of sequence, those of the model's generation config, which may list several, and the
    token that ends a turn in the chat template. The three often differ: a model tuned to chat may end its turns with
    a token that its base model did not know.
    """
    declared = model.generation_config.eos_token_id
    ids = {*declared} if isinstance(declared, list) else {declared}
    return tuple(sorted((ids | {tokenizer.eos_token_id, _end_of_turn(tokenizer)}) - {None}))


def _end_of_turn(tokenizer: Any) -> int | None:
    """The special token that follows an answer in the chat template; None where there is none."""
    if not has_chat_template(tokenizer):
        return None
    answer = "This is the answer."
    turns = [{"role": "user", "content": "This is the question."}, {"role": "assistant", "content": answer}]
    try:
        rendered = str(tokenizer.apply_chat_template(turns, tokenize=False, enable_thinking=False))
    except TemplateError:  # a template for other turns than these
        return None
    _, found, after = rendered.rpartition(answer)
    ids = tokenizer(after.lstrip(), add_special_tokens=False)["input_ids"] if found else []
    return int(ids[0]) if ids and ids[0] in tokenizer.added_tokens_decoder else None
