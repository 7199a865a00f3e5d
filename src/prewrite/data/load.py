"""From what the user names (a file, a folder, two or three files) to train, dev and test."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from prewrite.data.dataset import PRewriteDataset, Splits
from prewrite.data.faults import show
from prewrite.data.hub import PREFIX
from prewrite.data.in_memory import InMemory
from prewrite.data.readers import READERS, is_saved_dataset
from prewrite.data.splits import DEFAULT_FRACTIONS, SPLIT_NAMES
from prewrite.errors import DataError

BUILT_IN = "demo"
"""The name of the built-in data set, and of its folder beside this file."""

_FILE_STEMS = {"train": ("train",), "dev": ("dev", "validation", "val"), "test": ("test",)}


def load_splits(
    source: str | Path | InMemory,
    *,
    dev: str | Path | InMemory | None = None,
    test: str | Path | InMemory | None = None,
    seed: int = 0,
    column_map: Mapping[str, str] | None = None,
    instruction: str | None = None,
    task: str | None = None,
    skip_bad_rows: bool = False,
    hold_out_test: bool = True,
) -> Splits:
    """Train, dev and test from `source`: a file, a hub id, a folder that holds `train.*` and so on, or `demo`.

    Folders that `datasets` saved are read too: of one data set as a file is, of several splits as a folder of files.
    Rows in memory are what `PRewriteDataset` takes, or a dict of them by split, such as a `datasets.DatasetDict`.

    What is not given is cut from the train rows at the proportions 60:20:20: all of it from one file 60/20/20, only
    test (or only dev) at 60:20, i.e. a quarter. `dev` and `test` win over the folder's files. A hub id is one split
    (`@train` unless named): give the others as `dev="hf:owner/name@validation"`. `demo` is the built-in data.

    A row of train that is in dev or test too, or of dev that is in test too (after normalisation), is left out and
    counted in `Splits.dropped`; test is never changed. Labels come from train and dev. Without `hold_out_test` no
    test rows are cut from train and a test file is left closed: the test split is empty.

    Raises:
        DataError: as `PRewriteDataset`; a split is or becomes empty; a label is in test only; an instruction has a
            single label, or several templates.
    """
    if isinstance(source, str) and source == BUILT_IN:
        source = Path(str(files("prewrite.data").joinpath(BUILT_IN)))
    train_file: str | Path | InMemory = source
    if isinstance(source, Mapping):
        parts = _splits_in(source)
        train_file = parts["train"]
        dev = parts.get("dev") if dev is None else dev
        test = parts.get("test") if test is None else test
    elif (
        isinstance(source, str | Path)
        and not str(source).startswith(PREFIX)
        and os.path.isdir(source)
        and not is_saved_dataset(Path(source))
    ):
        found = _files_of(Path(source))
        if "train" not in found:
            names = ", ".join(sorted(file.name for file in Path(source).iterdir())) or "nothing"
            raise DataError(f"{source} holds {names}, but no train file; name it train.jsonl (or .parquet, .csv, ...)")
        train_file, dev, test = found["train"], dev or found.get("dev"), test or found.get("test")
    if not hold_out_test:
        test = None

    def load(file: str | Path | InMemory) -> PRewriteDataset:
        return PRewriteDataset.load(
            file, column_map=column_map, instruction=instruction, task=task, skip_bad_rows=skip_bad_rows
        )

    train_rows = load(train_file)
    dev_rows = None if dev is None else load(dev)
    test_rows = None if test is None else load(test)
    if dev_rows is None or test_rows is None:
        shares = _shares(dev_rows is None, test_rows is None and hold_out_test)
        cut = train_rows.split(shares, seed=seed)
        train_rows = cut.train
        dev_rows = cut.dev if dev_rows is None else dev_rows
        test_rows = cut.test if test_rows is None else test_rows
    dropped = {"train": 0, "dev": 0}
    if dev is not None or test is not None:
        in_test = test_rows.content_keys()
        dev_rows, dropped["dev"] = _without(dev_rows, in_test, "dev", "test")
        in_later = np.concatenate([dev_rows.content_keys(), in_test])
        train_rows, dropped["train"] = _without(train_rows, in_later, "train", "dev or test")
    splits = Splits(train_rows, dev_rows, test_rows, seed=seed, dropped=dropped)
    _check_templates(splits)
    return _with_common_labels(splits)


def _splits_in(source: Mapping[str, Any]) -> dict[str, Any]:
    """Split name -> its rows. Raises `DataError` where there are none of train."""
    found = {split: source[stem] for split in SPLIT_NAMES for stem in _FILE_STEMS[split] if stem in source}
    if "train" not in found:
        raise DataError(f"the rows are those of {', '.join(map(str, source)) or 'nothing'}; name the first train")
    return found


def _files_of(folder: Path) -> dict[str, Path]:
    """Split name -> its file. Raises `DataError` if two files could be the same split."""
    found: dict[str, Path] = {}
    for split in SPLIT_NAMES:
        files = [folder / f"{stem}{suffix}" for stem in _FILE_STEMS[split] for suffix in READERS]
        files = [file for file in files if file.is_file()]
        files += [folder / stem for stem in _FILE_STEMS[split] if is_saved_dataset(folder / stem)]
        if len(files) > 1:
            names = " and ".join(file.name for file in files)
            raise DataError(f"{folder} holds {names}, but {split} must be one file; move the others away")
        if files:
            found[split] = files[0]
    return found


def _shares(cut_dev: bool, cut_test: bool) -> tuple[float, float, float]:
    """The shares of train, dev and test in the train file, those that come from elsewhere left out."""
    train, dev, test = DEFAULT_FRACTIONS
    dev, test = dev * cut_dev, test * cut_test
    total = train + dev + test
    return train / total, dev / total, test / total


def _without(
    rows: PRewriteDataset, taken: np.ndarray[tuple[int], np.dtype[np.uint64]], name: str, where: str
) -> tuple[PRewriteDataset, int]:
    """`rows` less those whose key is in `taken`, and how many those are."""
    leaked = np.isin(rows.content_keys(), taken)
    if leaked.all():
        raise DataError(f"{rows.source.name}: every {name} row is in {where} too; give files that do not overlap")
    return rows.select(np.flatnonzero(~leaked)), int(leaked.sum())


def _check_templates(splits: Splits) -> None:
    """Raise `DataError` where an instruction has another template in dev or test than in train."""
    train, trained_on = splits.train.templates(), splits.train.by_instruction()
    for name, part in (("dev", splits.dev), ("test", splits.test)):
        for instruction, template in part.templates().items():
            if instruction in trained_on and train.get(instruction) != template:
                raise DataError(
                    f"{part.source.name}, field 'template': {name} rows of the instruction {show(instruction)} have "
                    f"{show(template)} and train rows {show(train.get(instruction))}, but it must be the same in all "
                    "rows of an instruction, since they share one rewrite; correct it"
                )


def _with_common_labels(splits: Splits) -> Splits:
    """The same choices in all three splits: the labels of train and dev."""
    in_train, in_dev = splits.train.gold_labels(), splits.dev.gold_labels()
    labels = {
        instruction: tuple(sorted({*in_train.get(instruction, ()), *in_dev.get(instruction, ())}))
        for instruction in [*in_train, *in_dev]
    }
    train, dev, test = (part.with_labels(labels) for part in (splits.train, splits.dev, splits.test))
    unknown = test.first_unknown_label()
    if unknown is not None:
        place, label, choices = unknown
        raise DataError(
            f"{place}, field 'output': the label {label!r} is in test only (train and dev have "
            f"{', '.join(map(repr, choices)) or 'none for its instruction'}), and labels must be known before test is "
            "opened; add a row with it to train, or give `choices` in the rows"
        )
    if any(len(found) == 1 for found in labels.values()):
        for example in train:
            if example.choices is not None and len(example.choices) == 1:
                raise DataError(
                    f"{train.source.name}: all classification rows of the instruction {example.instruction!r} have "
                    f"the label {example.output!r}, but there must be two or more; add rows with another, or give "
                    "`choices` in the rows"
                )
    return Splits(train, dev, test, seed=splits.seed, dropped=splits.dropped)
