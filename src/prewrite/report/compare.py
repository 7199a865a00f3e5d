"""Several runs (seeds, algorithms, models) on one page."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prewrite.errors import ConfigError
from prewrite.report.charts import Series, forest, line_chart
from prewrite.report.formats import duration, percent, points_tick, signed
from prewrite.report.markdown import cell, fenced, table
from prewrite.report.page import tasks_of
from prewrite.report.page_results import main_instruction
from prewrite.report.read import RunData, read_run
from prewrite.report.render import render

STYLES = 6
"""Colours that `style.css` has for runs; more runs take them in turn."""
OWN_SETTINGS = frozenset({"output_dir", "run_dir", "overwrite", "resume"})
"""Settings that differ between any two runs and say nothing."""


def compare_runs(paths: Sequence[str | Path]) -> str:
    """One HTML page on at least two run folders. Raises `ConfigError` for fewer, `RunFolderError` for a broken one."""
    page = _compare(paths)
    charts = page["charts"]
    hover = {"charts": {chart.id: chart.hover for chart in charts if chart.hover}, "panels": [], "live": ""}
    return render("compare.html", {**page, "hover": hover})


def compare_markdown(paths: Sequence[str | Path]) -> str:
    """The same comparison as Markdown tables."""
    page = _compare(paths)
    rows = [
        [
            cell(row["name"]),
            percent(row["initial"]),
            percent(row["score"]),
            f"{signed(row['gain'])} ({signed(row['low'])} to {signed(row['high'])})"
            if row["gain"] is not None
            else "",
            f"{row['prompts']:,}" if row["prompts"] is not None else "",
            duration(row["seconds"]) if row["seconds"] is not None else "",
        ]
        for row in page["rows"]
    ]
    parts = ["# Comparison", *(f"**{cell(warning)}**" for warning in page["warnings"])]
    parts.append(table(["run", "initial", "rewrite", "gain", "task-model prompts", "time"], rows))
    parts.append("\n".join(f"- {cell(row['name'])}: {cell(row['verdict'])}" for row in page["rows"]))
    for row in page["rows"]:
        parts.append(f"## {cell(row['name'])}")
        if row["tasks"]:
            head = ["instruction", "rewrite", "initial", "rewritten", "gain, 95% interval"]
            parts.append(table(head, [_task_cells(task) for task in row["tasks"]]))
        else:
            parts.append(fenced(row["rewrite"] or "(none yet)"))
    if page["settings"]:
        head = ["setting", *(cell(row["name"]) for row in page["rows"])]
        parts.append(table(head, [[cell(name), *map(cell, values)] for name, values in page["settings"]]))
    parts += [_group_line(group) for group in page["groups"]]
    return "\n\n".join(parts) + "\n"


def compare_json(paths: Sequence[str | Path]) -> dict[str, Any]:
    """The same comparison as JSON values: warnings, a row for each run, settings that differ, seeds together."""
    page = _compare(paths)
    rows = [{name: value for name, value in row.items() if name != "style"} for row in page["rows"]]
    return {"warnings": page["warnings"], "runs": rows, "settings": dict(page["settings"]), "seeds": page["groups"]}


def _task_cells(task: Mapping[str, Any]) -> list[str]:
    gain = task["gain"]
    return [
        cell(task["instruction"]),
        cell(task["text"]),
        percent(task["initial"]),
        percent(task["rewrite"]),
        f"{signed(gain['mean'])} ({signed(gain['low'])} to {signed(gain['high'])})",
    ]


def _compare(paths: Sequence[str | Path]) -> dict[str, Any]:
    if len(paths) < 2:
        raise ConfigError(f"compare needs at least two run folders, got {len(paths)}")
    runs = [read_run(path) for path in paths]
    names = _names(runs)
    rows = [_row(run, name, index) for index, (run, name) in enumerate(zip(runs, names, strict=True))]
    gains = [
        (row["name"], row["gain"], row["low"], row["high"], row["style"]) for row in rows if row["gain"] is not None
    ]
    charts = [_curves(runs, rows, "reward/mean", "Reward"), _curves(runs, rows, "dev/score", "Dev score")]
    return {
        "rows": rows,
        "warnings": _warnings(runs, names),
        "gains": forest("Gain over the initial instruction, in points", gains, zero=True) if gains else None,
        "charts": [chart for chart in charts if chart],
        "settings": _differing([run.config.get("config", {}) for run in runs]),
        "groups": _seed_groups(runs, rows),
    }


def _names(runs: Sequence[RunData]) -> list[str]:
    """Folder names, with their parents' where two are alike."""
    plain = [run.name for run in runs]
    if len(set(plain)) == len(plain):
        return plain
    return ["/".join(run.folder.path.resolve().parts[-2:]) for run in runs]


def _warnings(runs: Sequence[RunData], names: Sequence[str]) -> list[str]:
    """What keeps the runs' scores from being compared: other test rows, another task model, another scorer."""
    found = []
    tests = [[part["test"] for part in run.splits] for run in runs if run.splits]
    if len({json.dumps([test.get("sha256") for test in each]) for each in tests}) > 1:
        found.append("The runs were tested on different data: compare each run's own gain, and no scores.")
    elif len({json.dumps([{**test, "source": None} for test in each]) for each in tests}) > 1:
        found.append(
            "Each run was tested on other rows of the same data: compare gains over several runs, not scores."
        )
    for key, words in (("task_model", "task models"), ("metric", "metrics"), ("decoding", "ways to read an answer")):
        values = [_told(run, key) for run in runs]
        if len({value for value in values if value}) > 1:
            each = "; ".join(f"{name}: {value or 'not told'}" for name, value in zip(names, values, strict=True))
            found.append(f"The {words} differ, and so do what scores mean ({each}).")
    return found


def _told(run: RunData, key: str) -> str:
    """The task model, metric or decoding of a run; what a finished run really had, else its setting."""
    return str((run.result or {}).get(key) or run.config["config"].get(key) or "")


def _row(run: RunData, name: str, index: int) -> dict[str, Any]:
    result = run.result or {}
    test = result.get("test")
    found: dict[str, Any] = {}
    if test:
        main = main_instruction(test)
        difference = test["differences"].get(main)
        found = {
            "initial": test["instructions"][test["baseline"]]["mean"],
            "score": test["instructions"][main]["mean"],
            "gain": difference["mean"] if difference else None,
            "low": difference["low"] if difference else None,
            "high": difference["high"] if difference else None,
        }
    cost = result.get("cost", {})
    seconds = cost.get("seconds", {})
    return {
        "name": name,
        "style": f"run{index % STYLES}",
        "verdict": result.get("verdict", "no result yet"),
        "rewrite": result.get("rewrite", ""),
        "tasks": tasks_of(result),
        "prompts": cost.get("task_model", {}).get("prompts"),
        "seconds": sum(seconds.values()) if seconds else None,
        **({"initial": None, "score": None, "gain": None, "low": None, "high": None} | found),
    }


def _curves(runs: Sequence[RunData], rows: Sequence[Mapping[str, Any]], key: str, title: str) -> Any:
    lines = []
    for run, row in zip(runs, rows, strict=True):
        points = [(metric["step"], metric[key]) for metric in run.metrics if metric.get(key) is not None]
        step = max(1, len(points) // 240)
        points = points[::step]
        if points:
            xs, ys = [x for x, _ in points], [y for _, y in points]
            lines.append(Series(row["name"], xs, ys, row["style"], dots=key == "dev/score"))
    if not lines:
        return None
    name = "chart-" + key.replace("/", "-")
    if key == "dev/score":
        return line_chart(name, title, lines, y_text=percent, tick_text=points_tick, nearest="xy")
    return line_chart(name, title, lines, nearest="xy")


def _differing(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Settings whose values are not the same in all runs."""
    names = sorted({name for config in configs for name in config} - OWN_SETTINGS)
    found = []
    for name in names:
        values = [str(config.get(name, "–")) for config in configs]  # noqa: RUF001
        if len(set(values)) > 1:
            found.append((name, values))
    return found


def _seed_groups(runs: Sequence[RunData], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Runs that differ in their seed alone, and how much their gains vary: one run is one draw."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run, row in zip(runs, rows, strict=True):
        config = {k: v for k, v in run.config.get("config", {}).items() if k not in OWN_SETTINGS | {"seed"}}
        if row["gain"] is not None:
            groups.setdefault(json.dumps(config, sort_keys=True, default=str), []).append(row)
    return [
        {
            "names": [row["name"] for row in group],
            "mean": statistics.mean(row["gain"] for row in group),
            "spread": statistics.stdev(row["gain"] for row in group),
            "worst": min(row["gain"] for row in group),
            "best": max(row["gain"] for row in group),
        }
        for group in groups.values()
        if len(group) > 1
    ]


def _group_line(group: Mapping[str, Any]) -> str:
    return (
        f"{len(group['names'])} runs that differ in their seed alone ({', '.join(map(cell, group['names']))}): "
        f"mean gain {signed(group['mean'])}, standard deviation {percent(group['spread'])}, "
        f"{signed(group['worst'])} to {signed(group['best'])}."
    )
