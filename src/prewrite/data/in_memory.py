"""Rows that are in memory already: a list, a `datasets.Dataset`, a DataFrame of pandas or polars."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from prewrite.data.columns import Record, class_names, with_class_names
from prewrite.data.faults import BadRow, show
from prewrite.data.readers import Opened, Records
from prewrite.data.rows import FIELDS
from prewrite.errors import ConfigError
from prewrite.types import RewriteExample

InMemory = Any
"""Examples or dicts; or what has their rows, by its methods: a `datasets.Dataset`, a DataFrame. Neither package is
imported for it."""


def open_memory(source: InMemory) -> Opened:
    """The records of `source`, which count from 1. Raises `ConfigError` for what holds no rows."""
    if hasattr(source, "features") and hasattr(source, "column_names"):  # a datasets.Dataset
        classes = class_names(source.features.to_dict()) if source.features else {}
        found = (with_class_names(dict(row), classes) for row in source)
    elif hasattr(source, "to_dicts"):  # a DataFrame of polars
        found = iter(source.to_dicts())
    elif hasattr(source, "to_dict") and hasattr(source, "columns"):  # of pandas
        found = ({str(name): _cell(value) for name, value in row.items()} for row in source.to_dict("records"))
    elif isinstance(source, Mapping):
        parts = ", ".join(map(str, source)) or "nothing"
        raise ConfigError(f"rows: got an object with {parts}; give the rows of one of them, or a list of rows")
    elif isinstance(source, Iterable) and not isinstance(source, str | bytes):
        return Opened(_numbered(source), "row")
    else:
        raise ConfigError(f"rows: got {show(source)}; give a file, a list of rows, a datasets.Dataset or a DataFrame")
    return Opened(enumerate(found, start=1), "row")


def _numbered(rows: Iterable[Any]) -> Records:
    for number, row in enumerate(rows, start=1):
        yield number, _record(row)


def _record(row: Any) -> Record | BadRow:
    if isinstance(row, RewriteExample):
        return {field: getattr(row, field, None) for field in FIELDS}
    if isinstance(row, Mapping):
        return row
    return BadRow(
        None, f"got {show(row)}", "must be a RewriteExample or a dict", 'write {"input": ..., "output": ...}'
    )


def _cell(value: Any) -> Any:
    """A cell of pandas as a file would hold it: its missing values are NaN, its lists arrays."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return None if isinstance(value, float) and math.isnan(value) else value
