"""What is said of a row that breaks a rule."""

from __future__ import annotations


class BadRow(Exception):
    """One row breaks a rule. `skip_bad_rows` counts it under its rule; otherwise it becomes a `DataError`."""

    def __init__(self, field: str | None, problem: str, rule: str, remedy: str):
        super().__init__(problem)
        self.field, self.problem, self.remedy = field, problem, remedy
        self.rule = f"{field} {rule}" if field else rule
        """What bad rows are counted by, e.g. `output must be given`."""
        self.text = f"{problem}, but {'it ' if field else ''}{rule}; {remedy}"

    def at(self, place: str) -> str:
        """The whole message; `place` names file and line."""
        return f"{place}, field {self.field!r}: {self.text}" if self.field else f"{place}: {self.text}"


def show(value: object, width: int = 60) -> str:
    """`value` for a message, cut to `width` characters, so that a long row does not flood the terminal."""
    text = repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"
