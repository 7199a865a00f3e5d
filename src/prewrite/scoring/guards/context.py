"""What a rewrite is held against, and the shape of a guard."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from prewrite.scoring.guards.english import content_words, meanings, word_runs, words
from prewrite.text import mention

COPY_WORDS = 8
"""So many words in a row that stand in a forbidden text are a copy."""
SHORT_COPY_WORDS = 5
"""A forbidden text of fewer than `COPY_WORDS` but at least so many words counts when it is copied whole."""


@dataclass(frozen=True)
class GuardContext:
    """What a rewrite is held against. Build it once per instruction: it keeps what it has computed."""

    instruction: str
    """The initial instruction."""
    choices: tuple[str, ...] = ()
    """The labels; those that the instruction names must be kept."""
    forbidden_texts: Sequence[str] = ()
    """Training inputs and gold answers that a rewrite must not copy."""

    @cached_property
    def protected(self) -> tuple[re.Pattern[str], ...]:
        """One pattern per label that a rewrite must hold, since the instruction names it."""
        named = (label for label in self.choices if mention(label).search(self.instruction))
        return tuple(mention(label) for label in dict.fromkeys(named))

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels without those of one character: an "a" in a text is rarely the answer A."""
        return tuple(label for label in self.choices if len(label.strip()) > 1)

    @cached_property
    def label_words(self) -> frozenset[str]:
        """The words of all labels."""
        return frozenset(word for label in self.choices for word in words(label))

    @cached_property
    def content(self) -> tuple[frozenset[str | int], ...]:
        """For each content word of the instruction, what it can be matched by (`english.meanings`); without labels."""
        own = [word for word in content_words(self.instruction) if word not in self.label_words]
        return tuple(meanings(word) for word in dict.fromkeys(own))

    @cached_property
    def task_verb(self) -> frozenset[str | int]:
        """What the first content word of the instruction, usually its verb, can be matched by."""
        return self.content[0] if self.content else frozenset()

    @cached_property
    def forbidden(self) -> frozenset[str]:
        """Each run of `COPY_WORDS` words in a forbidden text, short texts whole, without runs of the instruction."""
        runs: set[str] = set()
        for text in self.forbidden_texts:
            tokens = words(text)
            size = min(COPY_WORDS, len(tokens))
            if size >= SHORT_COPY_WORDS:
                runs.update(word_runs(tokens, size))
        own = words(self.instruction)
        for size in range(SHORT_COPY_WORDS, COPY_WORDS + 1):
            runs.difference_update(word_runs(own, size))
        return frozenset(runs)


Guard = Callable[[str, GuardContext], float]
"""(rewrite, context) -> violation in [0, 1]: 0 is fine, 1 is as bad as can be."""
