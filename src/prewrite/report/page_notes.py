"""What a reader must know of the answers that the numbers rest on: rows without one, estimates, unknown models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHOWN = 3
"""Rows that are named where several are left out."""


def notes(config: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    """Sentences; none where there is nothing to say."""
    found = [note for task in result.get("tasks") or [result] if (note := guards_note(task))]
    left_out = result.get("left_out") or []
    if left_out:
        rows = "; ".join(_row(row) for row in left_out[:SHOWN])
        more = f"; and {len(left_out) - SHOWN} more" if len(left_out) > SHOWN else ""
        found.append(
            f"{_counted(len(left_out), 'row is', 'rows are')} left out for every instruction alike, since the task "
            f"model gave no answer: {rows}{more}."
        )
    usage = result.get("cost", {}).get("task_model", {})
    if uncounted := usage.get("uncounted"):
        asked = usage.get("prompts", 0) - usage.get("cache_hits", 0)
        found.append(
            f"Tokens are estimated for {uncounted:,} of {asked:,} answers: the task model did not count them."
        )
    if other := usage.get("other_model"):
        found.append(
            f"{_counted(other, 'answer', 'answers')} came, by the server's own word, from another configuration than "
            "the first one."
        )
    told = config.get("task_model")
    found += [_sentence(note) for note in (told.get("notes") or [])] if isinstance(told, Mapping) else []
    return found


def guards_note(result: Mapping[str, Any]) -> str | None:
    """A warning of the guards that fire on the wording that was chosen; None where none does."""
    rewrite, chosen = result.get("rewrite"), "prompt" if result.get("search") else "rewrite"
    fired = (result.get("guards") or {}).get(chosen)
    if not fired or rewrite == result.get("instruction"):
        return None
    names = [name.removeprefix("guard/") for name in fired]
    judged = (result.get("fidelity") or {}).get(chosen)
    if "fidelity" in names and judged is not None:
        names[names.index("fidelity")] = f"fidelity of {judged:.2f}, which is low"
    return (
        f"Guards fire on the wording “{_begin(str(rewrite))}”: {', '.join(names)}. Read it before you use it; "
        "strategy S refuses such wordings."
    )


def _row(row: Mapping[str, str]) -> str:
    place = f" ({row['at']})" if row["at"] else ""
    return f"“{_begin(row['input'])}”{place}, {row['reason']}"


def _begin(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:77] + "..."


def _counted(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _sentence(note: str) -> str:
    return f"{note[0].upper()}{note[1:]}."
