"""The page's part on a search of the whole prompt: what each part brings, and the prompts that competed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prewrite.report.charts import Chart, waterfall
from prewrite.report.read import RunData
from prewrite.scoring.prompt import TaskPrompt

SHOWN = 12
"""Prompts in the table, those first that came farthest; all stand in `candidates.jsonl`."""


def shown_prompt(run: RunData, result: Mapping[str, Any]) -> TaskPrompt | None:
    """The prompt that a search chose; None where a wording alone was chosen, or nothing yet."""
    if not result.get("search"):
        return None
    return TaskPrompt.from_json(result["prompt"], where=str(run.folder.result))


def steps_chart(result: Mapping[str, Any]) -> Chart | None:
    """The waterfall from the initial prompt to the chosen one, on test rows; None where the initial one was kept."""
    steps, test = (result.get("search") or {}).get("waterfall"), result.get("test")
    if not steps or not test:
        return None
    means = {name: found["mean"] for name, found in test["instructions"].items()}
    title = f"What each part brings on {test['n']} {test['rows']} rows"
    rises = [(step["adds"], means[step["at"]]) for step in steps]
    return waterfall(title, means[test["baseline"]], rises)


def search(run: RunData, result: Mapping[str, Any]) -> dict[str, Any] | None:
    """The prompts that came farthest, and how many competed; None without a search."""
    told = result.get("search")
    if not told:
        return None
    rows = [row for row in run.candidates if row["instruction"] == result["instruction"]]
    rows.sort(key=lambda row: (row["source"] != "initial", not row["chosen"], -row["rows"], -row["worth"]))
    return {
        **told,
        "reworded": result["prompt"]["instruction"] != result["instruction"],
        "shown": [
            {
                "name": row["source"],
                "style": "main" if row["chosen"] else "base" if row["source"] == "initial" else "other",
                "instruction": row["prompt"]["instruction"],
                "parts": _parts(TaskPrompt.from_json(row["prompt"], where="candidates.jsonl")),
                "rows": row["rows"],
                "score": row["score"],
                "worth": row["worth"],
            }
            for row in rows[:SHOWN]
        ],
    }


def _parts(prompt: TaskPrompt) -> str:
    """What stands in the prompt besides the instruction, in a few words."""
    parts = [prompt.answer_line] if prompt.answer_line else []
    if prompt.exemplars:
        place = "after" if prompt.layout == "instruction_first" else "before"
        parts.append(f"{len(prompt.exemplars)} exemplars {place} the instruction")
    return "; ".join(parts)
