"""Too short to say what to do, or too long to pay for."""

from __future__ import annotations

from prewrite.scoring.guards.context import GuardContext
from prewrite.scoring.guards.english import words

MIN_WORDS = 3
"""A rewrite needs this many words, or as many as the instruction, whichever is fewer."""
MAX_WORDS = 60
"""A rewrite may have this many words, or three times those of the instruction, whichever is more."""
CHARACTERS_PER_WORD = 12
"""So many characters count as a word at least, so that glueing words together does not help."""


def length(rewrite: str, context: GuardContext) -> float:
    """Too short: the share of `MIN_WORDS` that is missing. Too long: the excess over the limit, 1 at twice of it."""
    own = len(words(context.instruction))
    count = len(words(rewrite))
    least = max(1, min(MIN_WORDS, own))
    limit = max(MAX_WORDS, 3 * own)
    too_short = (least - count) / least
    too_long = max(count, len(rewrite) / CHARACTERS_PER_WORD) / limit - 1
    return min(1.0, max(0.0, too_short, too_long))
