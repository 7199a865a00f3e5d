"""Checked rows as an Arrow table: a million rows are a few large buffers, not a million Python objects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prewrite.data.faults import BadRow
from prewrite.data.readers import BATCH_ROWS, Opened
from prewrite.data.rows import Row, RowFormat
from prewrite.errors import DataError

# Texts that many rows share are stored once each (dictionary encoding). `large_` types: more than 2 GiB of text.
_SHARED = ("instruction", "task", "template", "choices")
_TYPES: dict[str, pa.DataType] = {
    "instruction": pa.large_string(),
    "input": pa.large_string(),
    "output": pa.large_list(pa.large_string()),
    "task": pa.large_string(),
    "template": pa.large_string(),
    "choices": pa.large_string(),
    "id": pa.large_string(),
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows came from, and what was left out on the way."""

    name: str
    """The path or hub id as the user gave it, or `memory`."""
    unit: str
    """What `line` counts: `line` of a text file, `row` otherwise; both from 1."""
    sha256: str
    """Of the file's bytes; of the rows as JSON lines for the hub, a saved folder, and memory."""
    skipped: Mapping[str, int]
    """Rows left out because of `skip_bad_rows`, by the rule that they broke."""
    first_skipped: Mapping[str, str]
    """The message of the first row left out, by rule."""
    notes: tuple[str, ...] = ()
    """What was guessed in reading, and what the settings did not reach."""

    def place(self, line: int) -> str:
        """`data/train.jsonl, line 7`."""
        return f"{self.name}, {self.unit} {line}"


@dataclass(frozen=True, slots=True)
class Rows:
    """All good rows of one source. Columns: those of `Row`, `row` (from 0, bad rows counted) and `line`."""

    table: pa.Table
    source: Source


def build_rows(
    name: str, opened: Opened, row_format: RowFormat, *, skip_bad_rows: bool = False, path: Path | None
) -> Rows:
    """Check records and store them. `path` is the file behind them, if there is one.

    Raises `DataError` at the first bad row unless `skip_bad_rows`, and if no row is good.
    """
    unit = opened.unit
    skipped: dict[str, int] = {}
    first_skipped: dict[str, str] = {}

    def fault(bad: BadRow, line: int) -> None:
        message = bad.at(f"{name}, {unit} {line}")
        if not skip_bad_rows:
            raise DataError(message)
        skipped[bad.rule] = skipped.get(bad.rule, 0) + 1
        first_skipped.setdefault(bad.rule, message)

    batches: list[pa.RecordBatch] = []
    seen = 0
    while chunk := list(islice(opened.records, BATCH_ROWS)):
        rows, numbers, lines = [], [], []
        for offset, (line, record) in enumerate(chunk):
            try:
                rows.append(row_format.parse(record) if not isinstance(record, BadRow) else _raise(record))
            except BadRow as bad:
                fault(bad, line)
            else:
                numbers.append(seen + offset)
                lines.append(line)
        seen += len(chunk)
        if rows:
            batches.append(_batch(rows, numbers, lines))
    if not batches:
        reason = f"all {seen} rows are bad: {next(iter(first_skipped.values()))}" if seen else "the file holds no rows"
        raise DataError(f"{name}: {reason if seen else reason + '; give one with at least one row'}")
    table = pa.Table.from_batches(batches).unify_dictionaries()
    del batches
    table = table.combine_chunks()  # so that taking a thousand rows costs a thousand rows
    for first, again, row_id in _repeated_ids(table):
        remedy = "give each row its own id, or map the field id to another column"
        fault(BadRow("id", f"got {row_id!r}, which {unit} {first} has too", "must be unique", remedy), again)
    if "id must be unique" in skipped:
        table = table.take(_first_of_each_id(table))
    table = table.drop_columns(["id"])
    digest = sha256_of_file(path) if path is not None and path.is_file() else sha256_of_rows(table)
    notes = (*opened.notes, *_instruction_not_used(name, table, row_format))
    return Rows(table, Source(name, unit, digest, skipped, first_skipped, notes))


def _instruction_not_used(name: str, table: pa.Table, row_format: RowFormat) -> Iterable[str]:
    if row_format.instruction is not None:
        own = pc.sum(pc.not_equal(table["instruction"], row_format.instruction)).as_py()
        if own:
            yield f"{name}: {own} of {len(table)} rows bring an instruction of their own; the one given is not theirs"


def _raise(bad: BadRow) -> Row:
    raise bad


def _batch(rows: list[Row], numbers: list[int], lines: list[int]) -> pa.RecordBatch:
    columns: dict[str, Any] = {}
    for field, values in zip(Row._fields, zip(*rows, strict=True), strict=True):
        column = pa.array(values, type=_TYPES[field])
        columns[field] = column.dictionary_encode() if field in _SHARED else column
    columns["row"], columns["line"] = pa.array(numbers, pa.int64()), pa.array(lines, pa.int64())
    return pa.RecordBatch.from_pydict(columns)


def _id_codes(table: pa.Table) -> np.ndarray[Any, np.dtype[np.int64]]:
    """One number per distinct id, and a number of its own for each row without one; shape (rows,)."""
    codes = table["id"].combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy().astype(np.int64)
    return np.where(codes < 0, -1 - np.arange(len(codes)), codes)


def _first_of_each_id(table: pa.Table) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.sort(np.unique(_id_codes(table), return_index=True)[1])


def _repeated_ids(table: pa.Table) -> Iterable[tuple[int, int, str]]:
    """(line of the first row with it, line of the repetition, id), in file order."""
    if table["id"].null_count == len(table):
        return
    codes = _id_codes(table)
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    for position in np.flatnonzero(first[inverse] != np.arange(len(codes))).tolist():
        line = table["line"]
        yield line[int(first[inverse[position]])].as_py(), line[position].as_py(), table["id"][position].as_py()


def sha256_of_file(path: Path) -> str:
    """Hex digest of the file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_rows(table: pa.Table) -> str:
    """Hex digest of the stored rows as JSON lines: for sources that are not one file."""
    digest = hashlib.sha256()
    for batch in table.select(list(Row._fields[:-1])).to_batches(max_chunksize=BATCH_ROWS):
        for row in batch.to_pylist():
            digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()
