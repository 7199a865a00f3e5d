"""The rules of one row: which fields it has, what they may hold, and what is said when they do not."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple, cast

from prewrite.data.columns import Column, Missing, Record
from prewrite.data.faults import BadRow, show
from prewrite.data.shapes import SHAPES, fields_of_shape
from prewrite.errors import ConfigError, DataError
from prewrite.text import is_valid_unicode, parse_json
from prewrite.types import TASKS, Task, kind_of_task

_WHOLE_NUMBER = re.compile(r"(-?[0-9]+)\.0+")
FIELDS = ("instruction", "input", "output", "task", "template", "choices", "id")


class Row(NamedTuple):
    """A row that keeps the rules, in the shape in which it is stored."""

    instruction: str
    input: str
    output: list[str]
    """The accepted answers, at least one; exactly one for classification."""
    task: Task | None
    template: str | None
    choices: str | None
    """The labels as a JSON list, so that rows with the same labels share one stored text."""
    id: str | None


@dataclass(frozen=True, slots=True)
class RowFormat:
    """How the records of one source become rows."""

    columns: Mapping[str, Column]
    """Our field -> the source's column, for every one of `FIELDS`."""
    instruction: str | None = None
    """For rows that have none."""
    task: Task | None = None
    """For rows that have neither task nor choices."""

    @classmethod
    def build(
        cls, column_map: Mapping[str, str] | None = None, instruction: str | None = None, task: str | None = None
    ) -> RowFormat:
        """Check the user's settings. Raises `ConfigError` on an unknown field or task, or a blank instruction."""
        unknown = sorted(set(column_map or ()) - set(FIELDS))
        if unknown:
            raise ConfigError(
                f"column_map: unknown field {unknown[0]!r}; it maps our field to your column, "
                f'as in {{"input": "text"}}, and our fields are {", ".join(FIELDS)}'
            )
        if task is not None and task not in TASKS:
            raise ConfigError(f"task: unknown task {task!r}; it must be one of {', '.join(TASKS)}")
        if instruction is not None and not is_valid_unicode(instruction):
            raise ConfigError(f"instruction: {show(instruction)} is no valid Unicode; write it in UTF-8")
        if instruction is not None and not instruction.strip():
            raise ConfigError("instruction: must not be blank; give the text that is to be rewritten, or leave it out")
        named = {field: field for field in FIELDS} | dict(column_map or {})
        return cls(
            {field: Column.parse(text, field) for field, text in named.items()}, instruction, cast("Task | None", task)
        )

    def check_columns(self, names: Iterable[str], source: str) -> None:
        """Raise `DataError` if a source with fixed columns lacks one that every row needs."""
        names = list(names)
        required = ["input", "output"] + ([] if self.instruction else ["instruction"])
        mapped = [field for field, column in self.columns.items() if column.text != field]
        for field in dict.fromkeys(mapped if set(names) & set(SHAPES) else required + mapped):
            if self.columns[field].among(names) is None:
                raise DataError(
                    f"{source}: there is no column {self.columns[field].name!r} for the field {field!r}; "
                    f"the columns are {', '.join(map(str, names)) or 'none'}; {_remedy_for_missing(field)}"
                )

    def read_columns(self, names: Iterable[str]) -> list[str]:
        """Those of the source's columns that rows are made of."""
        names = list(names)
        wanted = {column.among(names) for column in self.columns.values()} | set(SHAPES)
        return [name for name in names if name in wanted]

    def parse(self, record: Record) -> Row:
        """The row in `record`. Raises `BadRow` naming the first rule that it breaks."""
        if any(self.columns[field].among(record) is None for field in ("input", "output")):
            record = {
                **record,
                **{name: value for name, value in fields_of_shape(record).items() if name not in record},
            }
        instruction = self._value("instruction", record)
        if instruction is None:
            instruction = self.instruction
        template = self._template(self._value("template", record))
        choices = self._choices(self._value("choices", record))
        task = self._task(self._value("task", record), choices)
        output = self._output(record, task == "classification")
        if choices is not None:
            stray = [answer for answer in output if answer not in choices]
            if stray:
                raise BadRow(
                    "output", f"got {show(stray[0])}", "must be one of the row's choices",
                    f"the choices are {show(list(choices))}; correct the answer or add it to them",
                )  # fmt: skip
        row_id = self._value("id", record)
        return Row(
            instruction=_prose("instruction", self._given("instruction", instruction, record)),
            input=_text("input", self._given("input", self._value("input", record), record)),
            output=output,
            task=task,
            template=template,
            choices=None if choices is None else json.dumps(choices, ensure_ascii=False),
            id=None if row_id is None else _text("id", row_id),
        )

    def _value(self, field: str, record: Record) -> object:
        try:
            return self.columns[field].value(record)
        except Missing as missing:
            raise BadRow(field, str(missing), "must be given", "correct its place in column_map") from None

    def _given(self, field: str, value: object, record: Record) -> object:
        if value is None:
            column = self.columns[field]
            state = f"column {column.text!r} is " + ("missing" if column.among(record) is None else "empty (null)")
            found = ", ".join(_places(record)) or "none"
            raise BadRow(field, state, "must be given", f"the row's columns are {found}; {_remedy_for_missing(field)}")
        return value

    def _task(self, value: object, choices: tuple[str, ...] | None) -> Task | None:
        """The row's own kind of task; else what its choices say, or the kind given for rows that have none."""
        if value is None and choices is None:
            return self.task
        if value is not None and value not in TASKS:
            raise BadRow(
                "task", f"got {show(value)}", f"must be one of {', '.join(TASKS)}", "correct it or leave it out"
            )
        try:
            return kind_of_task(cast("Task | None", value), choices)
        except ValueError:
            raise BadRow(
                "task", f"got {show(value)}", "must be 'classification' where the row has choices",
                "correct it, or leave out one of the two",
            ) from None  # fmt: skip

    def _output(self, record: Record, is_label: bool) -> list[str]:
        value = _answer_text(self._given("output", self._value("output", record), record))
        if not isinstance(value, list | tuple):
            text = _text("output", value).strip()
            return [_label(text) if is_label else text]
        if is_label:
            raise BadRow(
                "output", f"got the list {show(value)}", "must be one label where the task is classification",
                "give one label, or set task to 'qa' and leave choices out if several answers are right",
            )  # fmt: skip
        if not value:
            raise BadRow("output", "got an empty list", "must hold at least one answer", "give one or drop the row")
        return list(dict.fromkeys(_text("output", _answer_text(answer)).strip() for answer in value))

    @staticmethod
    def _template(value: object) -> str | None:
        """A meta prompt of the row's own."""
        if value is None:
            return None
        text = _prose("template", value)
        if "{instruction}" not in text:
            rule, remedy = "must hold the slot {instruction}", "put it where the instruction belongs"
            raise BadRow("template", f"got {show(text)}", rule, remedy)
        return text

    @staticmethod
    def _choices(value: object) -> tuple[str, ...] | None:
        """A list of labels, or a JSON list in a text, since a CSV cell can hold nothing else."""
        if value is None:
            return None
        rule, remedy = "must be a list of two or more different labels", 'write it as ["yes", "no"], or leave it out'
        if isinstance(value, str):
            try:
                value = parse_json(value)
            except ValueError:
                raise BadRow("choices", f"got {show(value)}", rule, remedy) from None
        if not isinstance(value, list | tuple):
            raise BadRow("choices", f"got {show(value)}", rule, remedy)
        labels = tuple(_label(_text("choices", label).strip()) for label in value)
        if len(set(labels)) != len(labels) or len(labels) < 2:
            raise BadRow("choices", f"got {show(value)}", rule, remedy)
        return labels


@lru_cache(maxsize=4096)
def decode_choices(text: str) -> tuple[str, ...]:
    """The labels of `Row.choices`."""
    return tuple(json.loads(text))


def _places(record: Record) -> Iterator[str]:
    """What a `column_map` can name: the columns, and the parts of those that hold objects."""
    for name, value in record.items():
        yield from (f"{name}.{part}" for part in value) if isinstance(value, dict) else (str(name),)


def _label(text: str) -> str:
    """Whole numbers as such: a column that was read as decimal numbers holds the labels 0 and 1 as 0.0 and 1.0."""
    whole = _WHOLE_NUMBER.fullmatch(text)
    return whole[1] if whole else text


def _answer_text(value: object) -> object:
    """The text or texts of an answer that has other parts too, as the `answers` of SQuAD have."""
    return value["text"] if isinstance(value, dict) and "text" in value else value


def _text(field: str, value: object) -> str:
    """A text, or a number or boolean as JSON writes it: 7 -> '7', 7.0 -> '7', true -> 'true'."""
    if isinstance(value, str):
        return _checked(field, value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadRow(field, f"got {value}", "must be finite where it is a number", "correct it or drop the row")
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, Decimal) and value.is_finite():
        return format(value.normalize(), "f")
    raise BadRow(field, f"got {_kind(value)} {show(value)}", "must be text or a number", "correct it or drop the row")


def _prose(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise BadRow(field, f"got {_kind(value)} {show(value)}", "must be text", "correct it or drop the row")
    return _checked(field, value)


def _checked(field: str, text: str) -> str:
    if not text or text.isspace():
        raise BadRow(field, f"got {show(text)}", "must not be blank", "fill it in or drop the row")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise BadRow(
                field,
                f"got {show(text)}",
                "must be valid Unicode",
                "half of a surrogate pair stands alone; correct it",
            ) from None
    return text


def _kind(value: object) -> str:
    return "the object" if isinstance(value, dict) else "the list" if isinstance(value, list) else type(value).__name__


def _remedy_for_missing(field: str) -> str:
    remedy = f'add it, or name your own column with column_map={{"{field}": "<your column>"}}'
    return remedy + (", or give one instruction for all rows (instruction=)" if field == "instruction" else "")
