"""The meaning of the instruction lost, as far as a list of related words can tell."""

from __future__ import annotations

import re
from collections import Counter

from prewrite.scoring.guards.context import GuardContext
from prewrite.scoring.guards.english import content_words, is_english, meanings, words
from prewrite.scoring.guards.keep_words import keep_words

ENOUGH = 0.5
"""Share of the instruction's content words that a rewrite must cover."""
_NEGATED = re.compile(
    r"\b(?:do not|don['\u2019]t|never|must not|should not|cannot|avoid|refuse to|without) (\w+)", re.I
)
_DISMISSED = re.compile(
    r"\b(?:ignore|disregard|skip|forget)(?: about)?(?: \w+){0,2} "
    r"(?:review|article|sentence|text|input|question|problem|word|message|task|instruction)s?\s*(?:[.,;:!]|and\b|$)",
    re.IGNORECASE,
)
_ASKING_WORDS = frozenset(["what", "which", "how", "many", "much"])  # function words that can stand for a task verb


def drift(rewrite: str, context: GuardContext) -> float:
    """How far the share of the instruction's content words that are covered falls short: (0.5 - share) / 0.5.

    A word covers another of the same stem or of the same group in `english`; the labels that the instruction names
    count as one word, covered if all are kept. Dismissing the input ("ignore the review") is 1, and naming the task's
    verb in the negative only ("do not classify") adds 0.5.
    """
    if not context.content or not is_english(context.instruction):
        return 0.0
    if _DISMISSED.search(rewrite) and not _DISMISSED.search(context.instruction):
        return 1.0
    text = content_words(rewrite) + [word for word in words(rewrite) if word in _ASKING_WORDS]
    covered: set[str | int] = set().union(*map(meanings, text))
    hits = [not wanted.isdisjoint(covered) for wanted in context.content]
    if context.protected:
        hits.append(keep_words(rewrite, context) == 0)
    lost = max(0.0, (ENOUGH - sum(hits) / len(hits)) / ENOUGH)
    return min(1.0, lost + 0.5 * _task_negated(rewrite, text, context))


def _task_negated(rewrite: str, text: list[str], context: GuardContext) -> bool:
    """Whether the task's verb is named in the negative and nowhere else; `text` holds the rewrite's content words."""
    negated = [word.lower() for word in _NEGATED.findall(rewrite)]
    if _NEGATED.search(context.instruction) or all(map(context.task_verb.isdisjoint, map(meanings, negated))):
        return False
    return all(context.task_verb.isdisjoint(meanings(word)) for word in Counter(text) - Counter(negated))
