"""Files into records, one at a time, with the line or row that each stands on.

A fault of the file (encoding, compression, cut off) is a `DataError` at once; a fault of one row is yielded as a
`BadRow`, so that the caller may count it and go on. To read another format, write its reader and a line in `READERS`.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from prewrite.data.columns import Record, class_names, class_names_of_schema, with_class_names
from prewrite.data.faults import BadRow, show
from prewrite.data.rows import RowFormat
from prewrite.errors import DataError
from prewrite.text import parse_yaml

MAX_LINE_BYTES = 64 * 2**20
"""A longer line is taken for a file without line ends; it would be read into memory whole."""
BATCH_ROWS = 16_384

Records = Iterator[tuple[int, "Record | BadRow"]]


class Opened(NamedTuple):
    """A source that is about to be read."""

    records: Records
    """With their line or row, from 1."""
    unit: str
    """What those numbers count: `line` of a text file, `row` otherwise."""
    notes: tuple[str, ...] = ()
    """What was guessed about the source, to be told."""


def open_file(path: Path, row_format: RowFormat) -> Opened:
    """The records of a file, or of a folder that `datasets` saved. Raises `DataError` if it cannot be read."""
    if is_saved_dataset(path):
        return Opened(_saved_rows(path, row_format), "row")
    if os.path.isdir(path):
        raise DataError(f"{path} is a folder; give a file, or load the folder's train, dev and test with load_splits")
    if not os.path.exists(path):  # as above: `Path` raises for a name that is too long, as of a text in its place
        raise DataError(f"{path} does not exist (looked in {Path.cwd()}); check the path")
    name = path.name.lower()
    for suffix, reader in READERS.items():
        if name.endswith(suffix):
            return reader(path, row_format)
    if name.endswith(_SPREADSHEETS):
        raise DataError(f"{path} is a spreadsheet; save the sheet as CSV (UTF-8) in the program it is from, give that")
    raise DataError(f"{path}: unknown file type; the name must end in one of {', '.join(READERS)}")


def _json_lines(path: Path, row_format: RowFormat) -> Opened:
    """One JSON object a line; or, where the file is no such thing but one JSON value, the list of rows in it."""
    lines = _lines(path)
    begin = list(_up_to_text(lines))
    if begin and _begins_a_value(begin[-1][1]):
        return _json_rows(path)
    return Opened(_objects(chain(begin, lines)), "line")


def _up_to_text(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """The lines up to the first that is not blank."""
    for number, line in lines:
        yield number, line
        if not line.isspace():
            return


def _begins_a_value(line: str) -> bool:
    """Whether a first line begins or is a list of rows, or an object with one in it."""
    line = line.strip()
    if not _is_json(line.rstrip(",")):
        return line.startswith("[") or (line.startswith("{") and line[-1] in "{[,")
    whole = json.loads(line.rstrip(","))
    if isinstance(whole, dict):
        return any(isinstance(whole.get(name), list) for name in ("data", "rows", "examples", "tests"))
    return isinstance(whole, list) and all(isinstance(row, dict) for row in whole)


def _objects(lines: Iterator[tuple[int, str]]) -> Records:
    for number, line in lines:
        if not line.isspace():
            yield number, _parse_json(line)


def _parse_json(line: str) -> Record | BadRow:
    rule = "each line must hold one JSON object"
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of more than 4,300 digits
        remedy = (
            "remove the comma at its end" if _is_json(line.rstrip().rstrip(",")) else "correct the line or drop it"
        )
        return BadRow(None, f"{show(line.strip())} is not JSON ({error})", rule, remedy)
    if not isinstance(record, dict):
        return BadRow(None, f"got {show(record)}", rule, 'write it as {"input": ..., "output": ...}')
    return record


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _json_rows(path: Path) -> Opened:
    text = "".join(line for _, line in _lines(path))
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        comma = re.search(r",\s*[\]}]", text)
        remedy = "remove the comma before the closing bracket" if comma else "correct it, or write one object per line"
        raise DataError(f"{path}: not valid JSON ({error}); {remedy}") from None
    return _rows_of(whole, path)


def _rows_of(whole: Any, path: Path) -> Opened:
    """The rows in one value: a list, or an object with one list of objects in it."""
    notes: tuple[str, ...] = ()
    if isinstance(whole, dict):
        lists = {name: value for name, value in whole.items() if isinstance(value, list) and value}
        lists = {name: value for name, value in lists.items() if all(isinstance(item, dict) for item in value)}
        lists = {"tests": lists["tests"]} if "tests" in lists else lists  # of a promptfoo configuration
        if len(lists) != 1:
            raise DataError(
                f"{path}: one object with {len(lists)} lists of rows in it ({', '.join(map(str, whole)) or 'empty'}), "
                "but there must be one; write the rows as JSONL, one object per line"
            )
        ((name, whole),) = lists.items()
        notes = (f"{path}: the rows are those of {name!r}",)
    if not isinstance(whole, list):
        raise DataError(f"{path}: got {show(whole)}, but the file must hold a list of rows; write them as JSONL")
    rule, remedy = "each row must be an object", 'write it as {"input": ..., "output": ...}'
    rows = (row if isinstance(row, dict) else BadRow(None, f"got {show(row)}", rule, remedy) for row in whole)
    return Opened(enumerate(rows, start=1), "row", notes)


def _yaml(path: Path, row_format: RowFormat) -> Opened:
    """A YAML list of rows, or a promptfoo configuration with its tests."""
    text = "".join(line for _, line in _lines(path))
    try:
        whole = parse_yaml(text)
    except ValueError as error:
        raise DataError(f"{path}: not valid YAML ({error}); correct it") from None
    return _rows_of(whole, path)


_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def _delimited(path: Path, row_format: RowFormat) -> Opened:
    """A header and cells, between commas, semicolons, tabs or bars; an empty cell is a missing value."""
    first = next(_lines(path), (1, ""))[1]
    try:
        delimiter = max(_DELIMITERS, key=lambda mark: _fit(next(csv.reader([first], delimiter=mark), []), row_format))
    except csv.Error as error:
        raise DataError(f"{path}, line 1: not valid CSV ({error}); check the ends of its lines") from None
    notes = () if delimiter == "," else (f"{path}: read as cells between {_DELIMITERS[delimiter]}",)
    return Opened(_rows_of_cells(path, row_format, delimiter), "line", notes)


def _fit(header: list[str], row_format: RowFormat) -> tuple[int, int]:
    """How well a header fits: how many of our columns it has, then how many columns at all."""
    return len(row_format.read_columns(header)), len(header)


def _rows_of_cells(path: Path, row_format: RowFormat, delimiter: str) -> Records:
    old_limit = csv.field_size_limit(MAX_LINE_BYTES)  # the module's 128 KiB would refuse long inputs
    try:
        reader = csv.reader((line for _, line in _lines(path)), strict=True, delimiter=delimiter)
        header = next(reader, None)
        if header is None:
            return
        if len(set(header)) != len(header):
            raise DataError(f"{path}, line 1: the header names a column twice ({show(header)}); rename one")
        row_format.check_columns(header, str(path))
        first = reader.line_num + 1
        for cells in reader:
            if not cells:
                pass
            elif len(cells) != len(header):
                rule = f"a row must have the header's {len(header)} cells"
                spare = len(cells) == len(header) + 1 and not cells[-1]
                remedy = "remove the mark at its end" if spare else "put quotes around cells with commas"
                yield first, BadRow(None, f"got {len(cells)} cells", rule, remedy)
            else:
                yield first, {name: cell or None for name, cell in zip(header, cells, strict=True)}
            first = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not valid CSV ({error}); check its quotes") from None
    finally:
        csv.field_size_limit(old_limit)


def _parquet(path: Path, row_format: RowFormat) -> Opened:
    return Opened(_parquet_rows(path, row_format), "row")


def _parquet_rows(path: Path, row_format: RowFormat) -> Records:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            names = file.schema_arrow.names
            row_format.check_columns(names, str(path))
            classes = class_names_of_schema(file.schema_arrow.metadata)
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=row_format.read_columns(names)):
                for record in batch.to_pylist():
                    number += 1
                    yield number, with_class_names(record, classes)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: not a readable Parquet file ({reason}) after row {number}; write it again") from None


def is_saved_dataset(path: Path) -> bool:
    """Whether it is a folder that `Dataset.save_to_disk` of the package `datasets` wrote."""
    return os.path.isfile(path / "state.json") and os.path.isfile(path / "dataset_info.json")


def _saved_rows(path: Path, row_format: RowFormat) -> Records:
    import pyarrow as pa

    number = 0
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        info = json.loads((path / "dataset_info.json").read_text(encoding="utf-8"))
        classes = class_names(info.get("features") or {})
        for part in state["_data_files"]:
            with pa.memory_map(str(path / Path(part["filename"]).name)) as file, pa.ipc.open_stream(file) as stream:
                row_format.check_columns(stream.schema.names, str(path))
                wanted = row_format.read_columns(stream.schema.names)
                for batch in stream:
                    for record in batch.select(wanted).to_pylist():
                        number += 1
                        yield number, with_class_names(record, classes)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{path}: not a data set that can be read ({reason}) after row {number}; save it again"
        ) from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines as text with their 1-based number, line ends kept. UTF-8 with or without a byte-order mark."""
    number = 0
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            while raw := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(raw) > MAX_LINE_BYTES:
                    limit = f"{MAX_LINE_BYTES // 2**20} MiB"
                    raise DataError(f"{path}, line {number}: longer than {limit}; are the line ends missing?")
                yield number, _decode(raw, path, number)
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path}: reading stopped after line {number} ({error}); is the file whole?") from None


def _decode(raw: bytes, path: Path, number: int) -> str:
    if number == 1:
        if raw.startswith(b"PK\x03\x04"):
            raise DataError(f"{path} is a zip file or a spreadsheet, whatever its name; save it as CSV or JSONL")
        if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in raw:
            raise DataError(f"{path}: not UTF-8 but probably UTF-16; convert it: iconv -f UTF-16 -t UTF-8 in > out")
        raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {number}: byte 0x{raw[error.start]:02x} at position {error.start} is not UTF-8; "
            "files of Windows and Excel are mostly Windows-1252, which holds Latin-1 too: "
            "iconv -f WINDOWS-1252 -t UTF-8 in > out"
        ) from None


READERS: dict[str, Callable[[Path, RowFormat], Opened]] = {
    ".jsonl": _json_lines,
    ".json": _json_lines,
    ".jsonl.gz": _json_lines,
    ".json.gz": _json_lines,
    ".parquet": _parquet,
    ".csv": _delimited,
    ".tsv": _delimited,
    ".csv.gz": _delimited,
    ".tsv.gz": _delimited,
    ".yaml": _yaml,
    ".yml": _yaml,
}
_SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")
