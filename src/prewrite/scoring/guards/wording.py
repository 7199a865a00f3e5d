"""Rules about English wording; parts of `gibberish`. All but `shuffled` are off for other languages."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from itertools import pairwise

from prewrite.scoring.guards.asking import asks_for_something
from prewrite.scoring.guards.context import GuardContext
from prewrite.scoring.guards.english import FUNCTION_WORDS, word_set, words
from prewrite.scoring.guards.grammar import bad_pairs

_META = re.compile(
    r"\b(?:re-?writ\w*|rephras\w*|improv\w*|paraphras\w*)(?: \w+){0,3} (?:instructions?|prompts?)\b"
    r"|\b(?:new|original|rewritten|revised|initial|previous|updated|improved|following) (?:instruction|prompt)s?\b"
    r"|\b(?:descriptions?|rephrasing|requirements?) (?:of|for|in|to) (?:the |this |an? )?(?:instruction|prompt)s?\b"
    r"|\b(?:instruction|prompt)s? (?:with|via|by|for) (?:the |an? )?(?:descript|instruct|rephras|requir|prompt)"
    r"|\bvia rephrasing\b|\badding specific requirements?\b|\billustrative descriptions?\b|\bas an ai\b",
    re.IGNORECASE,
)
_META_WORD = re.compile(r"\b(?:instructions?|prompts?|rephras\w+|rewriter|requirements?)\b", re.IGNORECASE)
_CHATTER = re.compile(
    r"^\W*(?:(?:user|assistant|system|human|model|bot|ai)(?=\s*[:\n>]|\s*$)|(?:assistant|human)\b(?!['\u2019]s)"
    r"|sure\b|certainly\b|of course\b|okay\b|here (?:is|are)\b|here['\u2019]s\b|i['\u2019](?:m|d|ll|ve)\b"
    r"|i (?:am|will|can|cannot|have|would|think)\b|thank|sorry\b)",
    re.IGNORECASE,
)
# From a chat model's own system prompt, which small rewriters repeat: "You are a helpful AI assistant named ..."
_WHO_I_AM = re.compile(
    r"\b(?:ai|bot|assistant|model|agent)(?:,? (?:who|that|which) is)? (?:named|called)\b|\btrained by\b", re.IGNORECASE
)
_ROLE_INSIDE = re.compile(r"(?:^|\n)\s*(?:user|assistant|system|human)\s*:", re.IGNORECASE)
_MARKS = frozenset("-\u2013\u2014&+%$/.,;:!?()\"'\u2019\u201c\u201d\u2018\u2026")
_DANGLING = word_set("of as into than and or the a an if whether from because every your is are")


def odd_words(rewrite: str, context: GuardContext) -> float:
    """Twice the share of tokens that do not look like words, unless the instruction or a label has them."""
    parts = [part for token in rewrite.split() for part in words(token) or (token,)]
    odd = [part for part in parts if not _word_like(part)]
    if not odd:
        return 0.0
    known = context.label_words.union(words(context.instruction), context.instruction.split())
    return 2 * sum(part not in known for part in odd) / len(parts)


@lru_cache(maxsize=8192)
def _word_like(word: str) -> bool:
    """Whether a lower-case word, number or mark could stand in English prose."""
    if not any(map(str.isalnum, word)):
        return all(character in _MARKS for character in word)
    if any(map(str.isdigit, word)):
        return re.fullmatch(r"\d+(?:st|nd|rd|th|[-/]\d+|-\w+)?", word) is not None
    if any(ord(character) > 0x24F and character != "\u2019" for character in word):
        return False  # beyond Latin letters
    longest = max(word.replace("'", "-").split("-"), key=len)
    if len(longest) > 18 or re.search(r"(.)\1\1|[bcdfghjklmnpqrstvwxz]{6}", longest):
        return False
    return len(longest) <= 3 or re.search(r"[aeiouy\u00c0-\u024f]", longest) is not None


def bad_grammar(rewrite: str, context: GuardContext) -> float:
    """0.25 for each pair of neighbours that English does not allow, beyond those of the instruction."""
    return 0.25 * max(0, bad_pairs(rewrite) - bad_pairs(context.instruction))


def shuffled(rewrite: str, context: GuardContext) -> float:
    """A text made of the instruction's own words that keeps under half of its word pairs: 1 - 2 * share kept."""
    ours = [word for word in words(rewrite) if word not in context.label_words]  # labels may come in any order
    theirs = [word for word in words(context.instruction) if word not in context.label_words]
    if len(ours) < 6 or len(set(ours) - set(theirs)) > 0.2 * len(ours):
        return 0.0
    if (Counter(ours) & Counter(theirs)).total() < 0.8 * len(ours):
        return 0.0
    pairs = Counter(pairwise(ours))
    kept = (pairs & Counter(pairwise(theirs))).total() / pairs.total()
    return max(0.0, 1 - 2 * kept)


def function_words(rewrite: str, context: GuardContext) -> float:
    """In a text of 8 words and more: how far the share of function words lies below 15% or above 80%."""
    ours = [word for word in words(rewrite) if word not in context.label_words and not word.isdigit()]
    if len(ours) < 8:
        return 0.0
    share = sum(word in FUNCTION_WORDS for word in ours) / len(ours)
    return max(0.0, (0.15 - share) / 0.15, (share - 0.8) / 0.2)


def asks_nothing(rewrite: str, context: GuardContext) -> float:
    """0.5 for a text that asks for nothing, where the instruction asks for something."""
    return 0.5 * (asks_for_something(context.instruction) and not asks_for_something(rewrite))


def meta(rewrite: str, context: GuardContext) -> float:
    """1 for talk about rewriting instructions, 0.3 for each bare "instruction", "prompt" and the like."""
    if _META.search(rewrite) and not _META.search(context.instruction):
        return 1.0
    own = {word.lower() for word in _META_WORD.findall(context.instruction)}
    return 0.3 * sum(word.lower() not in own for word in _META_WORD.findall(rewrite))


def chatter(rewrite: str, context: GuardContext) -> float:
    """0.6 for a chat role or a reply ("Sure", "I am") at the start, a role line inside, or a model's introduction."""
    if _CHATTER.search(context.instruction):
        return 0.0
    introduced = _WHO_I_AM.search(rewrite) and not _WHO_I_AM.search(context.instruction)
    return 0.6 if _CHATTER.search(rewrite) or _ROLE_INSIDE.search(rewrite) or introduced else 0.0


def cut_off(rewrite: str, context: GuardContext) -> float:
    """0.4 for an end such as "or the"; 0.1 for no end mark where the instruction has one."""
    end = rewrite.rstrip()
    last = words(end)[-1:]
    if end[-1] not in ".:?!" and last and last[0] in _DANGLING and not end.endswith(tuple("\"'\u2019\u201d)")):
        return 0.4
    return 0.0 if _ended(end) or not _ended(context.instruction.rstrip()) else 0.1


def _ended(text: str) -> bool:
    """Whether a text ends with an end mark, a closing quote or bracket, or an item of a list in lines."""
    item = re.match(r"\s*(?:[-*\u2022]|\w{1,2}[.)])\s", text.rsplit("\n", 1)[-1])
    return text.endswith(tuple(".:?!\"'\u2019\u201d)]")) or bool(item)
