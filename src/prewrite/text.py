"""Filling named slots, finding phrases in a text, and reading plain values, JSON and YAML from one."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import yaml

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


def is_valid_unicode(text: str) -> bool:
    """Whether UTF-8 can hold the text: not where half of a surrogate pair stands alone."""
    return not LONE_SURROGATE.search(text)


LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_json(text: str | bytes) -> Any:
    """JSON. Raises `ValueError` with one line of reason, for what is nested too deeply to read too."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_yaml(text: str) -> Any:
    """YAML without tags that make Python objects. Raises `ValueError` with one line of reason.

    Refused as well: a name that stands twice in one mapping, of which PyYAML takes the last, and aliases by which a
    short text stands for a huge value.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count_values(node, 10 * len(text) + 10_000, {}, set())
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (AttributeError, IndexError, KeyError, OverflowError) as error:  # an explicit tag, as in `!!bool maybe`
        raise ValueError(f"a value is not what its tag says ({error!r})") from None


def _count_values(node: yaml.Node, most: int, known: dict[int, int], above: set[int]) -> int:
    """How many values a node stands for, its aliases written out. Raises `ValueError`."""
    if id(node) in known:
        return known[id(node)]
    line = node.start_mark.line + 1
    if id(node) in above:
        raise ValueError(f"line {line}: what stands there holds itself")
    above.add(id(node))
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        parts = node.value
    elif isinstance(node, yaml.MappingNode):
        names = set()
        for name, value in node.value:
            if isinstance(name, yaml.ScalarNode):
                if (name.tag, name.value) in names:
                    raise ValueError(f"line {name.start_mark.line + 1}: {name.value!r} stands there twice")
                names.add((name.tag, name.value))
            parts += [name, value]
    count = 1 + sum(_count_values(part, most, known, above) for part in parts)
    if count > most:
        raise ValueError(f"line {line}: with its aliases it stands for more than {most:,} values")
    above.remove(id(node))
    known[id(node)] = count
    return count


class Each(NamedTuple):
    """Shape of an object with any names, whose values are all of one shape."""

    of: Any


class Maybe(NamedTuple):
    """Shape of what may be absent or, unless `null` is off, null."""

    of: Any
    null: bool = True


_KINDS: dict[type, str] = {str: "text", int: "a whole number", float: "a finite number", bool: "true or false",
                           dict: "an object", list: "a list"}  # fmt: skip


def check_json(value: Any, shape: Any, place: str = "") -> None:
    """Raise `ValueError` that names the field where a JSON value is not of the shape.

    A shape is a type (`float` takes whole numbers too), a list of one shape, an object of names and shapes, beside
    which other names may stand, `Each` or `Maybe`.

    >>> check_json({"n": 1, "scores": {"a": 0.5}}, {"n": int, "scores": Each(float), "note": Maybe(str)})
    """
    if isinstance(shape, Maybe):
        if value is not None or not shape.null:
            check_json(value, shape.of, place)
        return
    kind = shape if isinstance(shape, type) else list if isinstance(shape, list) else dict
    fits = isinstance(value, int | float if kind is float else kind) and isinstance(value, bool) == (kind is bool)
    if not fits or (kind is float and not abs(value) <= sys.float_info.max):
        at = f"field {place!r}" if place else "what it holds"
        raise ValueError(f"{at} is {shown_value(value)}; it must be {_KINDS[kind]}")
    if isinstance(shape, Each):
        for name, part in value.items():
            check_json(part, shape.of, f"{place}.{name}".lstrip("."))
    elif isinstance(shape, dict):
        for name, part in shape.items():
            here = f"{place}.{name}".lstrip(".")
            if name in value:
                check_json(value[name], part, here)
            elif not isinstance(part, Maybe):
                raise ValueError(f"has no field {here!r}")
    elif isinstance(shape, list):
        for index, part in enumerate(value):
            check_json(part, shape[0], f"{place}[{index}]")


def shown_value(value: Any) -> str:
    """`repr`, cut, and without control characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
