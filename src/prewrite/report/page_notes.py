"""What a reader must know of the answers that the numbers rest on: rows without one, estimates, unknown models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHOWN = 3
"""Rows that are named where several are left out."""


def notes(config: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    """Sentences; none where there is nothing to say."""
    found = []
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


def _row(row: Mapping[str, str]) -> str:
    begins = " ".join(row["input"].split())
    begins = begins if len(begins) <= 80 else begins[:77] + "..."
    place = f" ({row['at']})" if row["at"] else ""
    return f"“{begins}”{place}, {row['reason']}"


def _counted(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _sentence(note: str) -> str:
    return f"{note[0].upper()}{note[1:]}."
