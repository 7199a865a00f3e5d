"""Whether a text asks for anything at all: an imperative, a question, "you should", "the task is"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from prewrite.scoring.guards.english import (
    AUXILIARIES,
    DETERMINERS,
    IMPERATIVES,
    PREPOSITIONS,
    QUESTION_WORDS,
    word_set,
    words,
)

_CLAUSES = re.compile(r"[.;:!?,\n()\u2013\u2014]+|\s-\s|\band\b|\bthen\b|\bor\b")
_ASKS_ANYWHERE = re.compile(
    r"\byou(?:['\u2019]ll| should| must| need| will| have| can| are| work)\b"
    r"|\b(?:task|goal|job|aim|work) (?:is|here)\b|\b(?:should|must|needs? to|has to|have to|please)\b|[?:]\W*$|\?\s",
    re.IGNORECASE,
)
_OPENERS = PREPOSITIONS | word_set("given based using when if once while whether your after reading")
_ASKING = IMPERATIVES | QUESTION_WORDS | AUXILIARIES
_BEFORE_NOUN = DETERMINERS | PREPOSITIONS | AUXILIARIES
_ADVERBS = word_set(
    "please now next finally first second third carefully simply just always never also so kindly instead to only "
    "not lastly otherwise still together all both either"
)


@lru_cache(maxsize=1024)
def asks_for_something(text: str) -> bool:
    """Whether any clause of the text does, or the text as a whole."""
    return any(_clause_asks(words(clause)) for clause in _CLAUSES.split(text)) or bool(_ASKS_ANYWHERE.search(text))


def _clause_asks(clause: Sequence[str]) -> bool:
    """Whether a clause begins with an imperative or question, or has one after an opening phrase ("For each word")."""
    at = 0
    while at < len(clause) and clause[at] not in IMPERATIVES and (clause[at] in _ADVERBS or clause[at].endswith("ly")):
        at += 1
    if at == len(clause):
        return False
    if clause[at] in _ASKING:
        return True
    return clause[at] in _OPENERS and any(
        word in IMPERATIVES and before not in _BEFORE_NOUN
        for before, word in zip(clause[at + 1 :], clause[at + 2 :], strict=False)
    )
