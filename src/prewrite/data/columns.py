"""Where in a record a field stands, and what the type of its column says about it."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from prewrite.errors import ConfigError

Record = Mapping[str, object]

_STEP = re.compile(r"\.([^.\[\]]+)|\[(-?[0-9]+)\]")


class Missing(Exception):
    """A record has nothing at a path; the message says what it has there."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the source, or a place within one: `text`, `answers.text`, `messages[-1].content`.

    A name goes into an object, and into every object of a list; an index takes one item of a list, from the end if it
    is negative. A column whose own name is the whole text, dots and all, comes first.
    """

    text: str
    name: str
    """The column that it begins in."""
    steps: tuple[str | int, ...]

    @classmethod
    def parse(cls, text: str, field: str) -> Column:
        """The column that `column_map` names for `field`. Raises `ConfigError` where it is no name or path."""
        name = re.match(r"[^.\[\]]*", text)
        assert name is not None, "matches nothing at least"
        steps = list(_STEP.finditer(text, name.end()))
        if not name.group() or "".join(step.group() for step in steps) != text[name.end() :]:
            raise ConfigError(
                f"column_map: {field}={text!r} is no column; write a column's name, or a place in one as in "
                "answers.text or messages[-1].content"
            )
        return cls(text, name.group(), tuple(step[1] or int(step[2]) for step in steps))

    def among(self, names: Container[str]) -> str | None:
        """Which of the source's columns must be read for it, if they have it."""
        return self.text if self.text in names else self.name if self.name in names else None

    def value(self, record: Record) -> object:
        """What the record holds there; None for nothing. Raises `Missing` where an object or list has no such part."""
        if not self.steps or self.text in record:
            return record.get(self.text)
        value, place = record.get(self.name), self.name
        for step in self.steps:
            if value is None:
                return None
            value = _part(value, step, place)
            place += f".{step}" if isinstance(step, str) else f"[{step}]"
        return value


def _part(value: object, step: str | int, place: str) -> object:
    if isinstance(step, int):
        if not isinstance(value, list | tuple):
            raise Missing(f"{place} is no list, so it has no item [{step}]")
        if not -len(value) <= step < len(value):
            raise Missing(f"{place} has {len(value)} items, so none is [{step}]")
        return value[step]
    if isinstance(value, list | tuple):
        return [_part(item, step, f"{place}[{index}]") for index, item in enumerate(value)]
    if not isinstance(value, dict):
        raise Missing(f"{place} is no object, so it has no part {step!r}")
    if step not in value:
        raise Missing(f"{place} has the parts {', '.join(map(str, value)) or 'none'}, so none is {step!r}")
    return value[step]


Names = list[str] | dict[str, "Names"]
"""Names of classes, by number; or by name for the parts of an object."""


def class_names(features: Mapping[str, Any]) -> dict[str, Names]:
    """Column -> names of its classes, from the features of a data set as the package `datasets` writes them to JSON.

    >>> class_names({"label": {"names": ["bad", "good"], "_type": "ClassLabel"}, "text": {"dtype": "string"}})
    {'label': ['bad', 'good']}
    """
    return {column: names for column, kind in features.items() if (names := _names(kind))}


def _names(kind: Any) -> Names:
    if isinstance(kind, list) and len(kind) == 1:  # how older versions write the kind of a list's items
        return _names(kind[0])
    if not isinstance(kind, dict):
        return []
    if "_type" not in kind:
        return class_names(kind)
    found = kind.get("names") if kind["_type"] == "ClassLabel" else _names(kind.get("feature"))
    return found or []


def class_names_of_schema(metadata: Mapping[bytes, bytes] | None) -> dict[str, Names]:
    """Column -> names of its classes, from the metadata that `datasets` writes into Parquet and Arrow files."""
    try:
        return class_names(json.loads((metadata or {})[b"huggingface"])["info"]["features"])
    except (KeyError, TypeError, ValueError):  # not written by datasets
        return {}


def with_class_names(record: dict[str, Any], names: Mapping[str, Names]) -> dict[str, Any]:
    """The record with the names of its classes; -1 stands for "no label", as in the test sets of GLUE."""
    for column, labels in names.items():
        if column in record:
            record[column] = _named(record[column], labels)
    return record


def _named(value: Any, names: Names) -> Any:
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    if isinstance(names, dict):
        return with_class_names(value, names) if isinstance(value, dict) else value
    if isinstance(value, int):
        return names[value] if 0 <= value < len(names) else None
    return value
