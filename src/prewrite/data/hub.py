"""Records of a data set on the Hugging Face hub: `hf:owner/name[:config][@split]`."""

from __future__ import annotations

import re

from prewrite.data.readers import BATCH_ROWS, Records
from prewrite.data.rows import RowFormat
from prewrite.errors import DataError, MissingDependencyError

PREFIX = "hf:"
_SPEC = re.compile(r"hf:(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^:@]+))?(?:@(?P<split>.+))?")


def read_hub(source: str, row_format: RowFormat) -> Records:
    """Records with their 1-based row. The split is `train` unless named; class labels come as their names.

    Raises `DataError` if the data set cannot be had, `MissingDependencyError` without the package `datasets`.
    """
    match = _SPEC.fullmatch(source)
    if match is None:
        raise DataError(f"{source!r}: not a hub data set; write hf:owner/name, hf:owner/name:config or ...@split")
    try:
        import datasets
    except ImportError:
        raise MissingDependencyError(
            f"{source}: reading from the hub needs the package datasets: pip install 'prewrite[train]'"
        ) from None
    try:
        rows = datasets.load_dataset(match["name"], match["config"], split=match["split"] or "train")
    except (OSError, ValueError) as error:  # offline, no such data set; no such config or split
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{source}: the hub data set could not be loaded ({reason}); check the name, config and split, and the "
            "connection; without one, download it elsewhere, save it as JSONL or Parquet, and give that file"
        ) from None
    row_format.check_columns(rows.column_names, source)
    rows = rows.select_columns([name for name in row_format.columns.values() if name in rows.column_names])
    names = {column: kind.names for column, kind in rows.features.items() if isinstance(kind, datasets.ClassLabel)}
    number = 0
    for batch in rows.with_format("arrow").iter(batch_size=BATCH_ROWS):
        for record in batch.to_pylist():
            number += 1
            for column, labels in names.items():  # -1 stands for "no label", as in the test sets of GLUE
                label = record[column]
                record[column] = labels[label] if label is not None and 0 <= label < len(labels) else None
            yield number, record
