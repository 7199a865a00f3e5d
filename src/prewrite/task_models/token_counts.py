"""How many tokens texts are where only their characters are known: at most, at least, and about."""

from __future__ import annotations

import re
from collections.abc import Sequence

from prewrite.text import UNSPACED

_CHECKED_FROM, _SPARE = 100, 0.8
"""Prompts of fewer words are never cut; and a tokenizer may join some words."""


def token_bound(*texts: str) -> int:
    """The most tokens that `texts` can be: one per UTF-8 byte, and 64 for a chat template around them."""
    return sum(len(text.encode()) for text in texts) + 64


# Tokenizers of language models do not join two of these into one token.
_PIECES = re.compile(rf"[^\W{UNSPACED}]{{1,16}}|[{UNSPACED}]{{1,4}}|[^\w\s]{{1,128}}")


def fewest_tokens(text: str) -> int:
    """A number of tokens that `text` has at least: one for each word or 16 letters of it, for each run of signs, and
    for four characters of a script without spaces."""
    return len(_PIECES.findall(text))


def cut_short(prompts: Sequence[str], tokens_read: int | None) -> str | None:
    """How a server cut these prompts without saying so, by the tokens that it says it read; None if it did not."""
    least = sum(map(fewest_tokens, prompts))
    if tokens_read is None or least < _CHECKED_FROM or tokens_read >= _SPARE * least:
        return None
    return f"the server cut the prompt: it read {tokens_read:,} tokens of {least:,} or more"


def estimated_tokens(*texts: str) -> int:
    """About as many tokens as `texts` are, where nobody has counted: one for four characters."""
    return sum(-(-len(text) // 4) for text in texts)
