"""The differences between two texts, word by word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

MAX_WORDS = 500
"""Beyond this the comparison could take seconds; what follows is shown as changed."""


class Piece(NamedTuple):
    """A stretch of text; `changed` says that the other side lacks it."""

    text: str
    changed: bool


def word_diff(before: str, after: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces, whose texts joined give each text back unchanged. White space is not compared."""
    old, new = _words(before), _words(after)
    matcher = SequenceMatcher(
        None, [word.strip() for word in old[:MAX_WORDS]], [word.strip() for word in new[:MAX_WORDS]], autojunk=False
    )
    left: list[Piece] = []
    right: list[Piece] = []
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        _add(left, old[i1:i2], tag != "equal")
        _add(right, new[j1:j2], tag != "equal")
    _add(left, old[MAX_WORDS:], True)
    _add(right, new[MAX_WORDS:], True)
    return left, right


def _words(text: str) -> list[str]:
    """Words and single marks, each with the white space after it, so that `word.` and `word` share the word."""
    return re.findall(r"\w+\s*|[^\w\s]\s*|\s+", text)


def _add(pieces: list[Piece], words: Sequence[str], changed: bool) -> None:
    """Append the words as one piece; a mark does not reach over the white space at its end."""
    text = "".join(words)
    inside = text.rstrip() if changed else text
    pieces += [Piece(part, mark) for part, mark in ((inside, changed), (text[len(inside) :], False)) if part]
