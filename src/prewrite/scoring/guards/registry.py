"""The guards by name, and how they are asked.

To add a guard: write a function `(rewrite, context) -> violation in [0, 1]` in a module of its own, and add its line
to `GUARDS`. Settings, reward, choice and report then know it; `tests/scoring/test_guards.py` holds it to the good and
the bad rewrites there, and to what all guards promise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prewrite.errors import ConfigError
from prewrite.scoring.guards.context import Guard, GuardContext
from prewrite.scoring.guards.drift import drift
from prewrite.scoring.guards.english import is_english
from prewrite.scoring.guards.gibberish import gibberish
from prewrite.scoring.guards.keep_words import keep_words
from prewrite.scoring.guards.leakage import leakage
from prewrite.scoring.guards.length import length
from prewrite.scoring.guards.off_task import off_task
from prewrite.scoring.guards.repetition import repetition

GUARDS: dict[str, Guard] = {
    "keep_words": keep_words,
    "length": length,
    "repetition": repetition,
    "leakage": leakage,
    "drift": drift,
    "off_task": off_task,
    "gibberish": gibberish,
}
DEFAULT_GUARDS: tuple[str, ...] = tuple(GUARDS)


def check_guards(rewrite: str, context: GuardContext, names: Iterable[str] = DEFAULT_GUARDS) -> dict[str, float]:
    """Name -> violation in (0, 1] of the guards that fire. Raises `ConfigError` for a name that does not exist."""
    violations = {name: GUARDS[name](rewrite, context) for name in known_guards(names)}
    return {name: value for name, value in violations.items() if value > 0}


def known_guards(names: Iterable[str]) -> Sequence[str]:
    """The names, checked. Raises `ConfigError` for one that does not exist."""
    names = tuple(names)
    if unknown := [name for name in names if name not in GUARDS]:
        raise ConfigError(f"guard {unknown[0]!r} is unknown; choose from {', '.join(GUARDS)}, or none")
    return names


def language_note(instruction: str) -> str | None:
    """What users of an instruction in another language than English must know about the guards; else None."""
    if is_english(instruction):
        return None
    return (
        f"{instruction!r} is not English: most rules of the guards drift, off_task and gibberish are off for it; the "
        "other guards and fidelity hold"
    )
