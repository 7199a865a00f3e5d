"""How far a text is from a sane English instruction, by small rules that need no language model.

Each rule is a function `(rewrite, context) -> fault`, 0 for none, and answers to one way in which policies have been
seen to go wrong or can be expected to. To add one: write it in `wording` (about English) or `marks` (about characters)
and add its line here.
"""

from __future__ import annotations

from prewrite.scoring.guards.context import Guard, GuardContext
from prewrite.scoring.guards.english import is_english
from prewrite.scoring.guards.marks import balance, markup, punctuation_runs, shouting
from prewrite.scoring.guards.wording import (
    asks_nothing,
    bad_grammar,
    chatter,
    cut_off,
    function_words,
    meta,
    odd_words,
    shuffled,
)

ANY_LANGUAGE: dict[str, Guard] = {
    "shuffled": shuffled,
    "markup": markup,
    "punctuation_runs": punctuation_runs,
    "balance": balance,
    "shouting": shouting,
}
ENGLISH: dict[str, Guard] = {
    "odd_words": odd_words,
    "bad_grammar": bad_grammar,
    "function_words": function_words,
    "asks_nothing": asks_nothing,
    "meta": meta,
    "chatter": chatter,
    "cut_off": cut_off,
}
"""Rules that hold only where the instruction is English."""


def gibberish(rewrite: str, context: GuardContext) -> float:
    """The sum of the text's `faults`, at most 1; an empty text is 1."""
    return min(1.0, sum(faults(rewrite, context).values())) if rewrite.strip() else 1.0


def faults(rewrite: str, context: GuardContext) -> dict[str, float]:
    """The faults of a text that is not empty, by rule, each in (0, 1]. What the instruction has itself is no fault."""
    rules = ANY_LANGUAGE | ENGLISH if is_english(context.instruction) else ANY_LANGUAGE
    found = {name: rule(rewrite, context) for name, rule in rules.items()}
    return {name: min(1.0, value) for name, value in found.items() if value > 0}
