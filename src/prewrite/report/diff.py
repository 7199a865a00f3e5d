"""The differences between two texts, word by word."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import NamedTuple

MAX_WORDS = 1500
"""Beyond this the comparison would take seconds; what follows is shown as changed."""


class Piece(NamedTuple):
    """A stretch of text; `changed` says that the other side lacks it."""

    text: str
    changed: bool


def word_diff(before: str, after: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces, whose texts joined give each text back unchanged."""
    old, new = _words(before), _words(after)
    left: list[Piece] = []
    right: list[Piece] = []
    matcher = SequenceMatcher(None, old[:MAX_WORDS], new[:MAX_WORDS], autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        _add(left, "".join(old[i1:i2]), tag != "equal")
        _add(right, "".join(new[j1:j2]), tag != "equal")
    _add(left, "".join(old[MAX_WORDS:]), True)
    _add(right, "".join(new[MAX_WORDS:]), True)
    return left, right


def _words(text: str) -> list[str]:
    """Words, single marks and white space, each a token, so that `word.` and `word` share the word."""
    return re.findall(r"\w+|\s+|[^\w\s]", text)


def _add(pieces: list[Piece], text: str, changed: bool) -> None:
    if text:
        pieces.append(Piece(text, changed))
