"""Which test rows the shipped prompt still gets wrong, grouped by confusion, and which ones it broke."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prewrite.errors import RunFolderError
from prewrite.report.formats import cut, percent
from prewrite.report.page_results import main_instruction
from prewrite.report.read import read_run

NO_LABEL = "no label"
"""What an answer that is none of the labels is called, whatever it says."""
LINE = 100
"""Characters of an input or answer in the text form."""


def explain(path: str | Path, *, examples: int = 3) -> list[dict[str, Any]]:
    """For each instruction of a run, where its shipped prompt fails; JSON types only.

    `lost` is the share of the mean score that a group of rows costs, in [0, 1]; the groups of an instruction, the
    dearest first, add up to what is missing from a score of 1. Each holds up to `examples` rows, as `broken` does: the
    rows that the initial prompt answers better. Without labels there is a single group. Raises `RunFolderError` for
    a run without answers to test rows.
    """
    run = read_run(path)
    if run.result is None:
        raise RunFolderError(f"{path} has no result yet; wait until the run ends, or go on with it by --resume")
    tests = [task["test"] for task in run.result.get("tasks") or [run.result] if task.get("test")]
    if not tests:
        raise RunFolderError(f"{path} held out no test rows, so no answers were kept; run it with test rows")
    parts = run.items_by_instruction()
    if [test["n"] for test in tests] != [len(items) for items in parts]:
        raise RunFolderError(f"{run.folder.items} holds {len(run.items)} rows, and the result is of another number")
    file = str(run.folder.items)
    return [_explained(test, items, examples, file) for test, items in zip(tests, parts, strict=True)]


def _explained(test: Mapping[str, Any], items: Sequence[Mapping[str, Any]], most: int, file: str) -> dict[str, Any]:
    baseline, main = test["baseline"], main_instruction(test)
    if any(name not in item["answers"] for item in items for name in (baseline, main)):
        raise RunFolderError(f"{file} has no answers of {baseline!r} and {main!r} for every row; the file was changed")
    labels = [row["label"] for row in test["instructions"][main]["labels"]]
    wrong: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for item in items:
        if item["answers"][main]["score"] < 1:
            given = item["answers"][main]["prediction"]
            confusion = (item["gold"][0], given if given in labels else NO_LABEL) if labels else ("", "")
            wrong.setdefault(confusion, []).append(item)
    groups = [
        {
            "gold": gold or None,
            "given": given or None,
            "rows": len(rows),
            "lost": sum(1 - row["answers"][main]["score"] for row in rows) / len(items),
            "examples": [_example(row, baseline, main) for row in rows[:most]],
        }
        for (gold, given), rows in wrong.items()
    ]
    change = [item["answers"][main]["score"] - item["answers"][baseline]["score"] for item in items]
    broken = [item for item, by in zip(items, change, strict=True) if by < 0]
    return {
        "instruction": test["instructions"][baseline]["instruction"],
        "rows": len(items),
        "score": test["instructions"][main]["mean"],
        "wrong": sum(group["rows"] for group in groups),
        "groups": sorted(groups, key=lambda group: -group["lost"]),
        "mended": sum(by > 0 for by in change),
        "broken": {"rows": len(broken), "examples": [_example(row, baseline, main) for row in broken[:most]]},
    }


def _example(item: Mapping[str, Any], baseline: str, main: str) -> dict[str, Any]:
    answers = item["answers"]
    return {
        "input": cut(item["input"]),
        "gold": item["gold"],
        "before": cut(answers[baseline]["prediction"]),
        "after": cut(answers[main]["prediction"]),
    }


def explanation(found: Mapping[str, Any]) -> str:
    """One instruction's part of `explain` as lines for a person."""
    lines = [
        f"Instruction: {_line(found['instruction'])}",
        f"The prompt scores {percent(found['score'])} on {found['rows']:,} test rows; "
        f"{found['wrong']:,} are not fully right.",
    ]
    for group in found["groups"]:
        confusion = f"{_line(group['gold'])} taken for {_line(group['given'])}" if group["gold"] else "not fully right"
        lines.append(f"\n{confusion}: {_rows(group['rows'])}, {percent(group['lost'])} points")
        shown = (f"  {_line(row['input'])}" for row in group["examples"])
        if group["given"] in (None, NO_LABEL):  # the heading does not tell what was answered
            shown = (f"{_row(row)}; given {_line(row['after'])}" for row in group["examples"])
        lines += shown
    broken = found["broken"]
    lines.append(
        f"\nAgainst the initial prompt {_rows(found['mended'])} became better and {_rows(broken['rows'])} worse"
        + (":" if broken["examples"] else ".")
    )
    lines += [f"{_row(row)}; before {_line(row['before'])}; now {_line(row['after'])}" for row in broken["examples"]]
    return "\n".join(lines)


def _row(row: Mapping[str, Any]) -> str:
    return f"  {_line(row['input'])}\n    gold {_line(' | '.join(row['gold']))}"


def _rows(count: int) -> str:
    return f"{count:,} row" if count == 1 else f"{count:,} rows"


def _line(text: str) -> str:
    line = " ".join(text.split())
    return (line if len(line) <= LINE else line[: LINE - 3] + "...") or "(empty)"
