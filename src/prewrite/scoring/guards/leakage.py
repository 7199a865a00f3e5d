"""What a rewrite must not give away: training texts, worked examples, the answer itself."""

from __future__ import annotations

import re
from functools import lru_cache

from prewrite.scoring.guards.context import COPY_WORDS, SHORT_COPY_WORDS, GuardContext
from prewrite.scoring.guards.english import word_runs, words
from prewrite.text import spaced

_WORKED_EXAMPLE = re.compile(r"\binput\s*:.{0,400}?\b(?:output|answer|label)\s*:\s*\S", re.IGNORECASE | re.DOTALL)
# One label named where several were asked for. "or", "if", or another label beside it make it a choice again.
_ALWAYS = (
    r"(?:\b(?:always|only ever|every time|invariably|in all cases|no matter what|regardless)\b"
    r"(?:(?!\b(?:or|if|when)\b)[^.;\n]){{0,40}}?"
    r"|\b(?:just|simply|only)\s+(?:answer|say|write|respond|reply|output|return|choose|print)\w*(?:\s+with)?\s+"
    r"|(?<!if )(?<!whether )\bthe (?:correct |right |final )?(?:answer|output|label|response) "
    r"(?:is|must be|should be|will be) (?:always )?)"
    r"[\"'\u201c]?(?:{labels})(?!\w)(?!\W{{0,3}}(?:and |or )?(?:{labels}))(?![^.;?!\n]{{0,60}}\b(?:or|if|when)\b)"
)


def leakage(rewrite: str, context: GuardContext) -> float:
    """The worst of three ways to give something away, none of them held against what the instruction itself does.

    - Copied training texts: 0.5 + half the share of the rewrite's words that are copied (`GuardContext.forbidden`).
    - A pair "Input: ... Output: ...", which would pass for the task template's own: 0.5.
    - One label named as the answer to everything ("always answer positive"): 1.
    """
    copied = _copied_share(rewrite, context.forbidden)
    return max(
        0.5 + 0.5 * copied if copied else 0.0,
        0.5 * _new(_WORKED_EXAMPLE, rewrite, context),
        1.0 * bool(context.labels and _new(_one_answer(context.labels), rewrite, context)),
    )


def _new(pattern: re.Pattern[str], rewrite: str, context: GuardContext) -> bool:
    return bool(pattern.search(rewrite)) and not pattern.search(context.instruction)


def _copied_share(rewrite: str, forbidden: frozenset[str]) -> float:
    """Share of the words that lie in a run of a forbidden text."""
    if not forbidden:
        return 0.0
    tokens = words(rewrite)
    copied: set[int] = set()
    for size in range(SHORT_COPY_WORDS, COPY_WORDS + 1):
        for start, run in enumerate(word_runs(tokens, size)):
            if run in forbidden:
                copied.update(range(start, start + size))
    return len(copied) / len(tokens) if copied else 0.0


@lru_cache(maxsize=256)
def _one_answer(labels: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(_ALWAYS.format(labels="|".join(map(spaced, labels))), re.IGNORECASE)
