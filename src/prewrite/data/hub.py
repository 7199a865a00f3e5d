"""Records of a data set on the Hugging Face hub: `hf:owner/name[:config][@split]`."""

from __future__ import annotations

import re
from typing import Any

from prewrite.data.columns import class_names, with_class_names
from prewrite.data.readers import BATCH_ROWS, Opened, Records
from prewrite.data.rows import RowFormat
from prewrite.errors import DataError, MissingDependencyError
from prewrite.lm.hub import hub_errors, hub_reason, why_out_of_reach

PREFIX = "hf:"
_SPEC = re.compile(r"hf:(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^:@]+))?(?:@(?P<split>.+))?")


def open_hub(source: str, row_format: RowFormat) -> Opened:
    """The records of a split, which is `train` unless named; class labels come as their names.

    Raises `DataError` if the data set cannot be had, within about 5 s where there is no hub, and
    `MissingDependencyError` without the package `datasets`.
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
    trouble = why_out_of_reach()
    if trouble is not None:  # `datasets` would try for half a minute; now it takes what it has fetched before
        datasets.config.HF_HUB_OFFLINE = True
    try:
        rows = datasets.load_dataset(match["name"], match["config"], split=match["split"] or "train")
    except hub_errors() as error:  # offline, no such data set; no such config or split
        reason = hub_reason(error)
        if trouble is not None and isinstance(error, OSError):
            raise DataError(
                f"{source}: the hub cannot be reached ({trouble}), and the data set was not fetched before; download "
                "it elsewhere, save it as JSONL or Parquet, and give that file"
            ) from None
        raise DataError(
            f"{source}: the hub data set could not be loaded ({reason}); check the name, config and split, and the "
            "connection; without one, download it elsewhere, save it as JSONL or Parquet, and give that file"
        ) from None
    except RuntimeError as error:  # what `datasets` says of data sets that are programs
        raise DataError(
            f"{source}: the hub data set could not be loaded ({hub_reason(error)}); where it is a program, prewrite "
            "does not run it: download its Parquet files (on the hub: Files, branch refs/convert/parquet), and give "
            "those"
        ) from None
    row_format.check_columns(rows.column_names, source)
    return Opened(_records(rows.select_columns(row_format.read_columns(rows.column_names))), "row")


def _records(rows: Any) -> Records:
    classes = class_names(rows.features.to_dict())
    number = 0
    for batch in rows.with_format("arrow").iter(batch_size=BATCH_ROWS):
        for record in batch.to_pylist():
            number += 1
            yield number, with_class_names(record, classes)
