"""Rows as other tools write them: chats, promptfoo's tests, DSPy's examples.

A row of such a shape is told by a column of its own. What it holds fills those of our fields that the row has no
column for. To add a shape, write its function and a line in `SHAPES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from prewrite.data.columns import Record
from prewrite.data.faults import BadRow, show

Fields = dict[str, object]


def fields_of_shape(record: Record) -> Fields:
    """Our fields in a row of another tool's shape; none where it is of no known shape. Raises `BadRow`."""
    for column, read in SHAPES.items():
        if record.get(column) is not None:
            return read(record)
    return {}


def _chat(record: Record) -> Fields:
    """A conversation as OpenAI's files and chat data sets hold it; the system message is the instruction."""
    messages = record["messages"]
    if not isinstance(messages, list | tuple) or not all(isinstance(message, Mapping) for message in messages):
        raise BadRow(
            "messages", f"got {show(messages)}", "must be a list of messages", "write each as role and content"
        )
    said = [(message.get("role"), _content(message.get("content"))) for message in messages]
    told = [content for role, content in said if role in ("system", "developer")]
    turns = [(role, content) for role, content in said if role not in ("system", "developer")]
    if [role for role, _ in turns] != ["user", "assistant"]:
        raise BadRow(
            "messages",
            f"got the roles {', '.join(str(role) for role, _ in said) or 'none'}",
            "must hold one user message and the answer to it",
            'give one exchange a row, or say which messages count, e.g. column_map={"input": "messages[-2].content", '
            '"output": "messages[-1].content"}',
        )
    fields: Fields = {"input": turns[0][1], "output": turns[1][1]}
    return fields | ({"instruction": told[0]} if told else {})


def _content(content: object) -> object:
    """The text of a message that holds parts."""
    if not isinstance(content, list | tuple):
        return content
    return "\n".join(str(part["text"]) for part in content if isinstance(part, Mapping) and part.get("text"))


def _promptfoo(record: Record) -> Fields:
    """A test of promptfoo: its variable is the input, and what it asserts of the answer's text is the gold answer."""
    variables, claims = record["vars"], record.get("assert") or ()
    if not isinstance(variables, Mapping) or not isinstance(claims, list | tuple):
        raise BadRow("vars", f"got {show(variables)}", "must be an object, and assert a list", "see promptfoo's docs")
    claimed = [claim for claim in claims if isinstance(claim, Mapping)]
    return _test(variables, [(str(claim.get("type")), claim.get("value")) for claim in claimed])


def _promptfoo_csv(record: Record) -> Fields:
    """A row of promptfoo's CSV: `__expected` asserts, `equals` unless it says what; other columns are variables."""
    claims: list[tuple[str, object]] = []
    for column, cell in record.items():
        if re.fullmatch(r"__expected\d*", column) and isinstance(cell, str):
            kind, colon, value = cell.partition(":")
            claims.append((kind.strip(), value.strip()) if colon and kind.strip() in _OF_TEXT else ("equals", cell))
    ours = ("instruction", "task", "template", "choices", "id")
    return _test({name: cell for name, cell in record.items() if name[:2] != "__" and name not in ours}, claims)


_OF_TEXT = ("equals", "contains", "icontains", "contains-any", "icontains-any")
"""The assertions of promptfoo whose value is an answer, or several of which one is enough."""


def _test(variables: Mapping[str, object], claims: list[tuple[str, object]]) -> Fields:
    fields: Fields = {}
    if "input" in variables or len(variables) == 1:
        fields["input"] = variables.get("input", next(iter(variables.values())))
    for kind, value in claims:
        if kind in _OF_TEXT and value is not None:
            slot = re.fullmatch(r"\{\{\s*(\w+)\s*\}\}", value) if isinstance(value, str) else None
            fields["output"] = variables.get(slot[1]) if slot else value
            break
    return fields


def _dspy(record: Record) -> Fields:
    """A DSPy example as its `__dict__` holds it; one input and one label are input and output."""
    store, keys = record["_store"], record.get("_input_keys")
    if not isinstance(store, Mapping) or not isinstance(keys, list | tuple | set | None):
        raise BadRow("_store", f"got {show(store)}", "must be an object", "write the example's toDict() instead")
    inputs = [value for name, value in store.items() if name in (keys or ())]
    labels = [value for name, value in store.items() if name not in (keys or ())]
    if len(inputs) == len(labels) == 1:
        return {"input": inputs[0], "output": labels[0]}
    return {}


SHAPES: dict[str, Callable[[Record], Fields]] = {
    "messages": _chat,
    "vars": _promptfoo,
    "__expected": _promptfoo_csv,
    "_store": _dspy,
}
"""The column that tells a shape, and what reads it."""
