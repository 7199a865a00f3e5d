"""How many tokens texts are where only their characters are known: at most, at least, and about."""

from __future__ import annotations

import re
from collections.abc import Sequence

from prewrite.text import UNSPACED
from prewrite.types import Prompt, turns_of

_CHECKED_FROM, _SPARE = 100, 0.8
"""Prompts of fewer words are never cut; and a tokenizer may join some words."""
_TEMPLATE, _HEADER = 64, 16
"""Tokens that a chat template puts around a prompt at most, and those for each further turn."""


def token_bound(prompt: Prompt, *texts: str) -> int:
    """The most tokens that a prompt and `texts` after it can be: one per UTF-8 byte, and those of a chat template."""
    turns = turns_of(prompt)
    size = sum(len(text.encode()) for text in (*(turn.text for turn in turns), *texts))
    return size + _TEMPLATE + _HEADER * (len(turns) - 1)


# Tokenizers of language models do not join two of these into one token. Those of GPT-4o, Llama 3 and Qwen join a word
# with one sign before it (`.foo`) and with an English ending (`n't`).
_PIECES = re.compile(
    rf"[^\w\s]?[^\W{UNSPACED}]{{1,16}}(?:['\u2019](?:[sdtm]|re|ve|ll)\b)?|[{UNSPACED}]{{1,4}}|[^\w\s]{{1,128}}",
    re.IGNORECASE,
)


def fewest_tokens(prompt: Prompt) -> int:
    """A number of tokens that a prompt has at least: one for each word or 16 letters of it, for each run of signs, and
    for four characters of a script without spaces."""
    return sum(len(_PIECES.findall(turn.text)) for turn in turns_of(prompt))


def cut_short(prompts: Sequence[Prompt], tokens_read: int | None) -> str | None:
    """How a server cut these prompts without saying so, by the tokens that it says it read; None if it did not."""
    least = sum(map(fewest_tokens, prompts))
    if tokens_read is None or least < _CHECKED_FROM or tokens_read >= _SPARE * least:
        return None
    return f"the server cut the prompt: it read {tokens_read:,} tokens of {least:,} or more"


def estimated_tokens(prompt: Prompt, *texts: str) -> int:
    """About as many tokens as a prompt and `texts` are, where nobody has counted: one for four characters."""
    return sum(-(-len(text) // 4) for text in (*(turn.text for turn in turns_of(prompt)), *texts))
