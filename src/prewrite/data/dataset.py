"""The data set: a view of rows in an Arrow table, handed out as `RewriteExample`s one at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from prewrite.data.faults import show
from prewrite.data.hub import PREFIX, open_hub
from prewrite.data.in_memory import InMemory, open_memory
from prewrite.data.readers import BATCH_ROWS, open_file
from prewrite.data.rows import RowFormat, decode_choices
from prewrite.data.splits import DEFAULT_FRACTIONS, SPLIT_NAMES, assign_splits, check_fractions, content_keys
from prewrite.data.table import Rows, Source, build_rows
from prewrite.errors import DataError
from prewrite.text import mention
from prewrite.types import RewriteExample

_NUMBER = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?")
Labels = Mapping[str, tuple[str, ...]]
"""The choices of an instruction's classification rows that name none themselves."""
_EXAMPLE_COLUMNS = ("row", "instruction", "input", "output", "task", "template", "choices")


class PRewriteDataset:
    """Labelled rows from a file or the hub.

    Fields: `instruction`, `input`, `output` (needed), `task`, `template`, `choices`, `id` (optional). Numbers and
    booleans become their JSON text; white space around answers and labels is removed; a list as `output` is several
    accepted answers. Classification rows without `choices` get the sorted distinct outputs of their instruction.
    """

    _rows: Rows
    _positions: NDArray[np.int64]
    _labels: Labels

    def __init__(
        self,
        source: str | Path | InMemory,
        *,
        column_map: Mapping[str, str] | None = None,
        instruction: str | None = None,
        task: str | None = None,
        skip_bad_rows: bool = False,
    ):
        """Read every row of `source` and check it.

        Args:
            source: a file of one of the types in `readers.READERS`, a folder that `datasets` saved, or
                `hf:owner/name[:config][@split]`; or rows in memory: a list of `RewriteExample`s or dicts, a
                `datasets.Dataset`, a DataFrame of pandas or polars.
            column_map: our field -> their column, or a place in it: `{"input": "question", "output": "answers.text"}`.
            instruction: for rows that have none.
            task: for rows that have none.
            skip_bad_rows: count bad rows (`skipped`) instead of stopping at the first.

        Raises:
            DataError: the source cannot be read, or a row breaks a rule; names file, line, field, value and remedy.
            ConfigError: an unknown field or no column in `column_map`, or an unknown `task`.
        """
        row_format = RowFormat.build(column_map, instruction, task)
        if not isinstance(source, str | Path):
            opened = open_memory(source)
            self._adopt(build_rows("memory", opened, row_format, skip_bad_rows=skip_bad_rows, path=None))
            return
        name = str(source)
        path = None if name.startswith(PREFIX) else Path(source)
        opened = open_hub(name, row_format) if path is None else open_file(path, row_format)
        self._adopt(build_rows(name, opened, row_format, skip_bad_rows=skip_bad_rows, path=path))

    @classmethod
    def load(
        cls,
        source: str | Path | InMemory,
        *,
        column_map: Mapping[str, str] | None = None,
        instruction: str | None = None,
        task: str | None = None,
        skip_bad_rows: bool = False,
    ) -> PRewriteDataset:
        """The constructor under its usual name."""
        return cls(source, column_map=column_map, instruction=instruction, task=task, skip_bad_rows=skip_bad_rows)

    @classmethod
    def of(cls, rows: PRewriteDataset | InMemory) -> PRewriteDataset:
        """A data set as it is, other rows in memory as one."""
        return rows if isinstance(rows, PRewriteDataset) else cls(rows)

    @classmethod
    def from_examples(cls, examples: Iterable[RewriteExample]) -> PRewriteDataset:
        """A data set in memory, under the same rules as a file; rows count from 1 in messages."""
        return cls(list(examples))

    def _adopt(self, rows: Rows) -> None:
        self._rows, self._positions, self._labels = rows, np.arange(len(rows.table), dtype=np.int64), {}
        self._labels = self.gold_labels()

    def _view(self, positions: NDArray[np.int64]) -> PRewriteDataset:
        dataset = type(self).__new__(type(self))
        dataset._rows, dataset._positions, dataset._labels = self._rows, positions, self._labels
        return dataset

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[RewriteExample]:
        for batch in self._batches(*_EXAMPLE_COLUMNS):
            yield from map(self._example, batch.to_pylist())

    def iter(self) -> Iterator[RewriteExample]:
        """The rows as examples, in order, a batch of Python objects at a time."""
        return iter(self)

    @overload
    def __getitem__(self, index: int) -> RewriteExample: ...

    @overload
    def __getitem__(self, index: slice) -> PRewriteDataset: ...

    def __getitem__(self, index: int | slice) -> RewriteExample | PRewriteDataset:
        """One row, or a data set of the rows of a slice."""
        if isinstance(index, slice):
            return self._view(self._positions[index])
        return self._example(self._rows.table.slice(int(self._positions[index]), 1).to_pylist()[0])

    def __repr__(self) -> str:
        return f"PRewriteDataset({self.source.name!r}, {len(self)} rows)"

    @property
    def source(self) -> Source:
        """The file or hub id behind this data set, its sha256, and what was skipped."""
        return self._rows.source

    @property
    def skipped(self) -> dict[str, int]:
        """Bad rows of the whole source that were left out, by the rule they broke; see `source.first_skipped`."""
        return dict(self.source.skipped)

    @property
    def indices(self) -> NDArray[np.int64]:
        """Each row's number in its source, from 0; blank lines are no rows, bad rows count; shape (len,)."""
        numbers: NDArray[np.int64] = self._column("row").to_numpy()
        return numbers

    def select(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> PRewriteDataset:
        """The rows at these positions of this data set (from 0), in the order given; repeats are allowed."""
        return self._view(self._positions[np.asarray(indices, dtype=np.int64)])

    def split(self, fractions: tuple[float, float, float] = DEFAULT_FRACTIONS, *, seed: int = 0) -> Splits:
        """Disjoint train, dev and test in file order, stratified by instruction and label; see `splits.py`.

        A fraction of 0 gives an empty split. Raises `DataError` if a split with a share comes out empty.
        """
        check_fractions(fractions)
        labels, _ = self._label_codes()
        chosen = assign_splits(self.content_keys(), self._codes("instruction"), labels, fractions, seed)
        parts = [self._view(self._positions[chosen == split]) for split in range(3)]
        for name, part, fraction in zip(SPLIT_NAMES, parts, fractions, strict=True):
            if fraction > 0 and not len(part):
                raise DataError(
                    f"{self.source.name}: the {len(self)} rows ({len(np.unique(self.content_keys()))} different) are "
                    f"too few: {name} would be empty; add rows, or give a {name} file"
                )
        train, dev, test = parts
        return Splits(train, dev, test, seed=seed)

    def by_instruction(self) -> dict[str, PRewriteDataset]:
        """One data set per instruction, in the order in which they first appear."""
        if not len(self):
            return {}
        codes = self._codes("instruction")
        texts = self._texts("instruction")
        distinct, first = np.unique(codes, return_index=True)
        order = np.argsort(codes, kind="stable")
        groups = dict(
            zip(distinct.tolist(), np.split(order, np.searchsorted(codes[order], distinct[1:])), strict=True)
        )
        return {texts[code]: self.select(groups[code]) for code in distinct[np.argsort(first)].tolist()}

    def templates(self) -> dict[str, str]:
        """The meta prompt of each instruction whose rows bring one as `template`.

        Raises `DataError` where the rows of an instruction differ in it: they share one rewrite, so one meta prompt.
        """
        given = self._texts("template")
        if not given:
            return {}
        texts = self._texts("instruction")
        pairs, first = np.unique(
            np.stack([self._codes("instruction"), self._codes("template")]), axis=1, return_index=True
        )
        found: dict[str, tuple[str | None, int]] = {}
        for (instruction, template), position in zip(pairs.T.tolist(), first.tolist(), strict=True):
            name, text = texts[instruction], given[template] if template >= 0 else None
            if name in found:
                other, at = found[name]
                place = self.source.place(self._column("line")[max(at, position)].as_py())
                raise DataError(
                    f"{place}, field 'template': rows of the instruction {show(name)} have {show(other)} and "
                    f"{show(text)}, but it must be the same in all of them, since they share one rewrite; correct it"
                )
            found[name] = text, position
        return {name: text for name, (text, _) in found.items() if text is not None}

    # What loading and splitting need beyond the above.

    def gold_labels(self) -> dict[str, tuple[str, ...]]:
        """The sorted distinct outputs of the classification rows, by instruction."""
        labels, names = self._label_codes()
        texts = self._texts("instruction")
        pairs = np.unique(np.stack([self._codes("instruction"), labels])[:, labels >= 0], axis=1)
        found: dict[str, list[str]] = {}
        for instruction, label in pairs.T.tolist():
            found.setdefault(texts[instruction], []).append(names[label])
        return {instruction: tuple(sorted(outputs)) for instruction, outputs in found.items()}

    def with_labels(self, labels: Labels) -> PRewriteDataset:
        """The same rows, with these choices where a classification row names none itself."""
        dataset = self._view(self._positions)
        dataset._labels = labels
        return dataset

    def first_unknown_label(self) -> tuple[str, str, tuple[str, ...]] | None:
        """(place, label, choices) of the first classification row whose gold label is not among its choices."""
        labels, names = self._label_codes()
        instructions, texts = self._codes("instruction"), self._texts("instruction")
        derived = self._codes("choices") < 0
        where = np.flatnonzero((labels >= 0) & derived)
        pairs, first = np.unique(np.stack([instructions, labels])[:, where], axis=1, return_index=True)
        unknown = [
            (int(where[position]), names[label], self._labels.get(texts[instruction], ()))
            for (instruction, label), position in zip(pairs.T.tolist(), first.tolist(), strict=True)
            if names[label] not in self._labels.get(texts[instruction], ())
        ]
        if not unknown:
            return None
        position, label, choices = min(unknown)
        return self.source.place(self._column("line")[position].as_py()), label, choices

    def content_keys(self) -> NDArray[np.uint64]:
        """What rows are compared by across splits: equal keys, same row; shape (len,)."""
        return content_keys(
            (row["instruction"], row["input"])
            for batch in self._batches("instruction", "input")
            for row in batch.to_pylist()
        )

    def provenance(self) -> dict[str, Any]:
        """Source, sha256 and row numbers, as JSON values; `rows` is "all" for every good row of the source."""
        whole = np.array_equal(self._positions, np.arange(len(self._rows.table)))
        return {
            "source": self.source.name,
            "sha256": self.source.sha256,
            "skipped": self.skipped,
            "rows": "all" if whole else self.indices.tolist(),
        }

    def _batches(self, *columns: str) -> Iterator[pa.Table]:
        table = self._rows.table.select(list(columns))
        for start in range(0, len(self), BATCH_ROWS):
            yield table.take(pa.array(self._positions[start : start + BATCH_ROWS]))

    def _column(self, name: str) -> pa.Array:
        return self._rows.table[name].chunk(0).take(pa.array(self._positions))

    def _codes(self, shared: str) -> NDArray[np.int64]:
        """Which of `_texts(shared)` each row has, -1 for none; shape (len,)."""
        codes: NDArray[Any] = self._rows.table[shared].chunk(0).indices.fill_null(-1).to_numpy()
        return codes.astype(np.int64)[self._positions]

    def _texts(self, shared: str) -> list[str]:
        """The distinct values of a column whose texts are stored once each."""
        texts: list[str] = self._rows.table[shared].chunk(0).dictionary.to_pylist()
        return texts

    def label_codes(self) -> NDArray[np.int64]:
        """Which label each row has, as a number of no meaning; -1 where the task is not classification; (len,)."""
        return self._label_codes()[0]

    def _label_codes(self) -> tuple[NDArray[np.int64], list[str]]:
        """Which label each row has, -1 where the task is not classification, shape (len,); and the labels."""
        tasks = self._texts("task")
        codes = np.full(len(self), -1, np.int64)
        if "classification" not in tasks:
            return codes, []
        rows = np.flatnonzero(self._codes("task") == tasks.index("classification"))
        outputs = self._rows.table["output"].chunk(0).take(pa.array(self._positions[rows]))
        encoded = outputs.flatten().dictionary_encode()  # one output per classification row
        codes[rows] = encoded.indices.to_numpy()
        return codes, encoded.dictionary.to_pylist()

    def _example(self, row: dict[str, Any]) -> RewriteExample:
        choices = decode_choices(row["choices"]) if row["choices"] is not None else None
        if choices is None and row["task"] == "classification":
            choices = self._labels[row["instruction"]]
        output = row["output"]
        return RewriteExample(
            row["instruction"],
            row["input"],
            output[0] if len(output) == 1 else tuple(output),
            row["task"],
            row["template"],
            choices,
            place=f"{self.source.name}, row {row['row'] + 1}",
        )


@dataclass(frozen=True, slots=True)
class Splits:
    """Three disjoint sets of rows: `train` teaches, `dev` chooses, `test` is opened once."""

    train: PRewriteDataset
    dev: PRewriteDataset
    test: PRewriteDataset
    seed: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows left out of train or dev because they stand in a later split too, by split."""

    def __iter__(self) -> Iterator[PRewriteDataset]:
        """So that `train, dev, test = dataset.split()` works."""
        return iter((self.train, self.dev, self.test))

    def drawn(self, split: str) -> bool:
        """Whether no file holds this split alone: its rows were drawn, by the seed, from a file with those of others.

        `split` is train, dev or test.
        """
        names = [part.source.name for part in self if len(part)]
        return names.count(getattr(self, split).source.name) > 1

    def notes(self) -> list[str]:
        """Sentences on what was left out, was guessed, or looks odd: for the command line and the report."""
        notes = [
            f"{count} of the {name} rows left out: they stand in {'test' if name == 'dev' else 'dev or test'} too"
            for name, count in self.dropped.items()
            if count
        ]
        sources = {part.source.name: part.source for part in (self.train, self.dev, self.test)}
        for source in sources.values():
            notes += source.notes
            for rule, count in source.skipped.items():
                notes.append(f"{source.name}: {count} bad rows left out: {rule} ({source.first_skipped[rule]})")
        return notes + self._notes_on_labels()

    def _notes_on_labels(self) -> list[str]:
        notes = []
        trained_on = self.train.gold_labels()
        for instruction, labels in self.dev.gold_labels().items():
            if new := [label for label in labels if label not in trained_on.get(instruction, labels)]:
                notes.append(f"{show(instruction)}: dev rows have labels that no train row has: {', '.join(new)}")
        for instruction, labels in trained_on.items():
            if all(map(_NUMBER.fullmatch, labels)) and not mention(*labels).search(instruction):
                notes.append(
                    f"{show(instruction)}: the labels are numbers ({', '.join(labels)}), and the instruction does not "
                    "say what they mean; write names as labels, or say in the instruction which number means what"
                )
        return notes

    def to_json(self) -> dict[str, Any]:
        """What `splits.json` holds: seed, dropped rows, and per split its source, count and rows.

        `rows` is "all" where the split is every good row of its source, else the row numbers in it, from 0.
        """
        parts = dict(zip(SPLIT_NAMES, (self.train, self.dev, self.test), strict=True))
        return {
            "seed": self.seed,
            "dropped": dict(self.dropped),
            **{name: {"count": len(part), **part.provenance()} for name, part in parts.items()},
        }
