"""Files into records, one at a time, with the line that each stands on.

A fault of the file (encoding, compression, cut off) is a `DataError` at once; a fault of one row is yielded as a
`BadRow`, so that the caller may count it and go on.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from prewrite.data.rows import BadRow, Record, RowFormat, show
from prewrite.errors import DataError

MAX_LINE_BYTES = 64 * 2**20
"""A longer line is taken for a file without line ends; it would be read into memory whole."""
BATCH_ROWS = 16_384

Records = Iterator[tuple[int, "Record | BadRow"]]


def read_file(path: Path, row_format: RowFormat) -> Records:
    """Records of `path` with their 1-based line (Parquet: row). Raises `DataError` if the file cannot be read."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; give a file, or load the folder's train, dev and test with load_splits")
    if not path.exists():
        raise DataError(f"{path} does not exist (looked in {Path.cwd()}); check the path")
    return reader_of(path)(path, row_format)


def reader_of(path: Path) -> Callable[[Path, RowFormat], Records]:
    """The reader for the file's suffix. Raises `DataError` listing the known ones."""
    name = path.name.lower()
    for suffix, reader in READERS.items():
        if name.endswith(suffix):
            return reader
    raise DataError(f"{path}: unknown file type; the name must end in one of {', '.join(READERS)}")


def _read_jsonl(path: Path, row_format: RowFormat) -> Records:
    for number, line in _lines(path):
        if line.isspace():
            continue
        if number == 1 and line.lstrip().startswith("["):
            raise DataError(
                f"{path}, line 1: a JSON array, but the rule is one JSON object per line; write it as JSONL"
            )
        yield number, _parse_json(line)


def _parse_json(line: str) -> Record | BadRow:
    rule = "each line must hold one JSON object"
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of more than 4,300 digits
        return BadRow(None, f"{show(line.strip())} is not JSON ({error})", rule, "correct the line or drop it")
    if not isinstance(record, dict):
        return BadRow(None, f"got {show(record)}", rule, 'write it as {"input": ..., "output": ...}')
    return record


def _read_csv(path: Path, row_format: RowFormat) -> Records:
    """Comma-separated with a header; an empty cell is a missing value."""
    old_limit = csv.field_size_limit(MAX_LINE_BYTES)  # the module's 128 KiB would refuse long inputs
    try:
        reader = csv.reader((line for _, line in _lines(path)), strict=True)
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
                yield first, BadRow(None, f"got {len(cells)} cells", rule, "put quotes around cells with commas")
            else:
                yield first, {name: cell or None for name, cell in zip(header, cells, strict=True)}
            first = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not valid CSV ({error}); check its quotes") from None
    finally:
        csv.field_size_limit(old_limit)


def _read_parquet(path: Path, row_format: RowFormat) -> Records:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            names = file.schema_arrow.names
            row_format.check_columns(names, str(path))
            wanted = [column for column in row_format.columns.values() if column in names]
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted):
                for record in batch.to_pylist():
                    number += 1
                    yield number, record
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: not a readable Parquet file ({reason}) after row {number}; write it again") from None


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
        if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in raw:
            raise DataError(f"{path}: not UTF-8 but probably UTF-16; convert it: iconv -f UTF-16 -t UTF-8 in > out")
        raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {number}: byte 0x{raw[error.start]:02x} at position {error.start} is not UTF-8; "
            "if the file is Latin-1, convert it: iconv -f LATIN1 -t UTF-8 in > out"
        ) from None


READERS: dict[str, Callable[[Path, RowFormat], Records]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".json.gz": _read_jsonl,
    ".parquet": _read_parquet,
    ".csv": _read_csv,
}
