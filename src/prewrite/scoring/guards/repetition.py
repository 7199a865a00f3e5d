"""Degenerate repetition: runs of words, words, list items that come again and again."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

from prewrite.scoring.guards.context import GuardContext
from prewrite.scoring.guards.english import FUNCTION_WORDS, word_runs, word_set, words

_STUTTER = re.compile(
    r"\b([^\W\d_]{3,})\b(?:[\s,;.!\"'-]+(?:and|or|of|the|a|an|to|with|in|for|as)\b){0,3}[\s,;.!\"'-]+\1\b", re.I
)
_STUTTER_ALLOWED = word_set("step word letter line more over again less one sentence digit that number item")
_LISTS = re.compile(r"[.;:!?\n()]+")
_ITEMS = re.compile(r"[,/]|\bor\b|\band\b|\bversus\b|\bvs\b")


def repetition(rewrite: str, context: GuardContext) -> float:
    """The worst of four kinds of repetition, each beyond what the instruction itself repeats.

    - Share of three-word runs that came before, from 0.2 on: (share - 0.2) / 0.3.
    - A word again right after itself ("description and description"): 0.5 each.
    - An item twice in one list ("positive, negative, positive"): 0.5 each.
    - A content word more than max(4, words / 10) times, a label's more than 3 times: 0.34 for each time too many.
    """
    ours, own = words(rewrite), words(context.instruction)
    if len(ours) < 2:
        return 0.0
    repeated = _repeated_share(ours) - max(0.2, _repeated_share(own))
    stutters = _stutters(rewrite) - _stutters(context.instruction)
    doubles = _double_items(rewrite) - _double_items(context.instruction)
    return min(1.0, max(0.0, repeated / 0.3, 0.5 * stutters, 0.5 * doubles, 0.34 * _overused(ours, own, context)))


@lru_cache(maxsize=1024)
def _repeated_share(tokens: tuple[str, ...]) -> float:
    runs = list(word_runs(tokens, 3))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


@lru_cache(maxsize=1024)
def _stutters(text: str) -> int:
    return sum(match[1].lower() not in _STUTTER_ALLOWED for match in _STUTTER.finditer(text))


@lru_cache(maxsize=1024)
def _double_items(text: str) -> int:
    """How often an item comes again in its list.

    Of the first item only the last word counts, of the last item the first: "classify as [x], y or [z] only".
    """
    doubles = 0
    for part in _LISTS.split(text.lower()):
        items = [item for item in map(words, _ITEMS.split(part)) if item]
        if len(items) < 3:
            continue
        names = [items[0][-1], *(" ".join(item) for item in items[1:-1]), items[-1][0]]
        counts = Counter(name for name in names if name not in FUNCTION_WORDS)
        doubles += sum(count - 1 for count in counts.values())
    return doubles


def _overused(ours: tuple[str, ...], own: tuple[str, ...], context: GuardContext) -> int:
    """Uses of content words beyond what is allowed; one more than in the instruction always is."""
    labels = {word for label in context.labels for word in words(label)}
    usual, allowed = Counter(own), max(4, len(ours) // 10)
    counts = Counter(word for word in ours if word not in FUNCTION_WORDS)
    return sum(
        max(0, count - max(3 if word in labels else allowed, usual[word] + 1)) for word, count in counts.items()
    )
