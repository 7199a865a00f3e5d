"""Filling named slots, finding phrases in a text, and reading a plain value from one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from prewrite.errors import ConfigError


def fill(template: str, values: Mapping[str, str], *, required: Iterable[str] = ()) -> str:
    """Put each value into its `{name}` slot, in one pass, so braces in a value are never read as slots.

    Braces around any other text stay as they are (`{"label": x}`). A value without a slot is left out. Raises
    `ConfigError` for a name in `required` that has no slot in `template` or no value.

    >>> fill('{instruction} as {"label": x}: {input}', {"instruction": "Use {input}", "input": "a {b}"})
    'Use {input} as {"label": x}: a {b}'
    """
    for name in required:
        if f"{{{name}}}" not in template:
            raise ConfigError(f"template {shown(template)} has no slot {{{name}}}; put {{{name}}} where it belongs")
        if name not in values:
            raise ConfigError(f"template {shown(template)} needs a value for {{{name}}}, got {sorted(values)}")
    if not values:
        return template
    slots = re.compile(r"\{(" + "|".join(map(re.escape, values)) + r")\}")
    return slots.sub(lambda match: values[match.group(1)], template)


# Scripts without spaces between words, and Korean, which ties its particles to them.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"


@lru_cache(maxsize=1024)
def mention(*phrases: str) -> re.Pattern[str]:
    """Finds any of `phrases` as whole words, in any case and spacing; the longest where they overlap.

    >>> mention("c", "c++").findall("c++, C and cc")
    ['c++', 'C']
    """
    return re.compile("|".join(map(whole_words, sorted(phrases, key=len, reverse=True))), re.IGNORECASE)


def whole_words(phrase: str) -> str:
    """A pattern for `phrase` in any spacing, where no word of another meaning begins before it or goes on behind it.

    >>> bool(re.search(whole_words("no"), "答案是no。")), bool(re.search(whole_words("no"), "none"))
    (True, False)
    """
    before = "" if re.match(rf"\s*[{UNSPACED}]", phrase) else rf"(?<![^\W{UNSPACED}])"
    after = "" if re.search(rf"[{UNSPACED}]\s*$", phrase) else rf"(?![^\W{UNSPACED}])"
    return f"{before}{spaced(phrase)}{after}"


def spaced(phrase: str) -> str:
    """A pattern for `phrase` in any spacing."""
    return r"\s+".join(map(re.escape, phrase.split()))


def shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


SCALARS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
"""Kinds of plain values, and what a person calls them."""


def read_scalar(kind: type, value: Any) -> Any:
    """`value` as one of `SCALARS`: a flag is always text, and YAML reads `5e-6` as text. Raises `ValueError`.

    >>> read_scalar(float, "5e-6"), read_scalar(int, 3.0), read_scalar(str, 3)
    (5e-06, 3, '3')
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        if kind is bool and isinstance(value, bool):
            return value
    elif kind is str:
        return str(value)
    elif kind in (int, float):
        number = float(value)
        if math.isfinite(number) and (kind is float or number.is_integer()):
            return kind(number)
    raise ValueError(f"{value!r} is not {SCALARS[kind]}")
