"""Pairs of neighbouring words that English does not allow, such as "the of" or "a or"."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise

from prewrite.scoring.guards.english import DETERMINERS, word_set

_QUOTED_WORD = re.compile("[\"'\u201c\u2018](\\w[\\w /'-]{0,24})[\"'\u201d\u2019](?!\\w)")
_TOKENS = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*|[.!?;:,\n]")
_ENDS = frozenset(".!?;:,\n")
_STOPS = frozenset(".!?")
_NEVER_FIRST = word_set("or than into them else")
_NEVER_LAST = word_set("or and than if whether because into every either when while")
_BEFORE_LETTER = frozenset(["letter", "character", "with", "or", ","])
# Nothing of the right-hand set can follow the left-hand word in English prose.
_AFTER_DETERMINER = (
    word_set("of to in on at by for from with into or and but if is are was were be been has have had do does will "
              "would can could should must it this that these those which what whether than as")
    | DETERMINERS - {"every"}
)  # fmt: skip
_AFTER = {
    "of": word_set("of as or and is are by to at be if into was were has have do does"),
    "into": word_set("of as or and is are by to at be if into with from"),
    "from": word_set("of as or and if into from be"),
    "for": word_set("of or if for into be"),
    "with": word_set("of as if with into by be"),
    "as": word_set("of or and are as into be"),
    "or": word_set("or and of are"),
    "and": word_set("and of"),
    "to": word_set("of to or into if"),
    "in": word_set("of in is are be"),
    "on": word_set("of on is are be"),
    "by": word_set("of by is are be"),
    "at": word_set("of in at and or by if are be"),
    "if": word_set("of or and if is are to with by as"),
    "whether": word_set("of and is are as with whether if"),
    "which": word_set("as which what if be than"),
    "what": word_set("as what which if be than"),
    "how": word_set("of as how if be"),
    "this": word_set("a an the this these your its"),
    "these": word_set("a an the this these is your its"),
    "does": word_set("of in on by from is are does"),
    "be": word_set("of or and is are be to"),
    "one": word_set("the this your what"),
    "each": word_set("a an the this these your each are to"),
    "both": word_set("is or what which each"),
    "only": word_set("of"),
    "then": word_set("of or than be"),
    "it": word_set("it this your an which"),
    "you": word_set("you of or is be this"),
    "than": word_set("of or and than is"),
    "is": word_set("is are be of"),
    "are": word_set("is are be of"),
}


@lru_cache(maxsize=1024)
def bad_pairs(text: str) -> int:
    """Neighbours that cannot be: two words, a word and the stop after it, or a stop and the word after it."""
    tokens = _prose(text)
    bad = int(bool(tokens) and tokens[0] in _NEVER_FIRST)
    for at, (left, right) in enumerate(pairwise([*tokens, "."])):
        if left in DETERMINERS:
            letter = left == "a" and at > 0 and tokens[at - 1] in _BEFORE_LETTER
            bad += (right in _AFTER_DETERMINER or right in _ENDS) and not letter
        elif left in _STOPS:
            bad += right in _NEVER_FIRST
        elif right in _STOPS:
            bad += left in _NEVER_LAST
        else:
            bad += right in _AFTER.get(left, ()) or (left == right and left.isalpha() and left != "that")
    return bad


def _prose(text: str) -> list[str]:
    """Tokens and stops in lower case; a quoted word and a lone capital letter are names, here "x"."""
    tokens = _TOKENS.findall(_QUOTED_WORD.sub(" x ", text))
    return ["x" if len(t) == 1 and t.isupper() and i and tokens[i - 1] not in _STOPS else t.lower()
            for i, t in enumerate(tokens)]  # fmt: skip
