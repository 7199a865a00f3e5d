"""Rules about characters, for any language; parts of `gibberish`."""

from __future__ import annotations

import re

from prewrite.scoring.guards.context import GuardContext

_MARKUP = re.compile(r"[{}<>|\\`#*_=~^\[\]@]")
_RUNS = re.compile(r"[,;:!?]{2,}|[,;:]\s*\.|\.{4,}|(?<!\.)\.\.(?!\.)|(?:\s[.,;:!?]){2,}|-{3,}")
_ENUMERATOR = re.compile(r"(?:^|\s)\w{1,2}\)")
_PAIRS = (("(", ")"), ("[", "]"), ("\u201c", "\u201d"))
_UPPER, _LOWER = re.compile(r"[A-Z]"), re.compile(r"[a-z]")


def markup(rewrite: str, context: GuardContext) -> float:
    """0.15 for each character of code or markup that neither the instruction nor a label has."""
    known = {context.instruction, *context.choices}
    return 0.15 * sum(not any(mark in text for text in known) for mark in _MARKUP.findall(rewrite))


def punctuation_runs(rewrite: str, context: GuardContext) -> float:
    """0.3 for each run of punctuation such as ",," beyond those of the instruction."""
    return 0.3 * max(0, len(_RUNS.findall(rewrite)) - len(_RUNS.findall(context.instruction)))


def balance(rewrite: str, context: GuardContext) -> float:
    """0.25 for brackets or double quotes that do not pair."""
    return 0.25 * (_unbalanced(rewrite) and not _unbalanced(context.instruction))


def _unbalanced(text: str) -> bool:
    plain = _ENUMERATOR.sub(" ", text)
    return plain.count('"') % 2 == 1 or any(plain.count(left) != plain.count(right) for left, right in _PAIRS)


def shouting(rewrite: str, context: GuardContext) -> float:
    """0.3 for a text mostly in capitals."""
    return 0.3 * (_mostly_capitals(rewrite) and not _mostly_capitals(context.instruction))


def _mostly_capitals(text: str) -> bool:
    upper, lower = len(_UPPER.findall(text)), len(_LOWER.findall(text))
    return upper > lower and upper >= 8
