"""From what a run's files say to what its page shows: numbers, words and drawings, no markup of the page itself.

The parts of the page have modules of their own: `page_training`, `page_race`, `page_results`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from prewrite.data.splits import SPLIT_NAMES
from prewrite.report.charts import stacked_bar
from prewrite.report.diff import word_diff
from prewrite.report.formats import calls_and_tokens, cost_sentence, duration, prompt_tokens
from prewrite.report.page_notes import notes
from prewrite.report.page_race import race
from prewrite.report.page_results import (
    by_labels,
    confusions,
    flips,
    label_chart,
    main_instruction,
    reliabilities,
    scores,
)
from prewrite.report.page_search import search, shown_prompt, steps_chart
from prewrite.report.page_training import curves, estimates, evolutions, panels
from prewrite.report.read import RunData


def build_page(run: RunData) -> dict[str, Any]:
    """The values that `template.html` and `report.md` are filled with."""
    result = run.result or {}
    tasks = result.get("tasks") or [result]
    items = [*run.items_by_instruction(), *([] for _ in tasks)]
    views = [view(run, task, rows) for task, rows in zip(tasks, items, strict=False)]
    tones = {found["tone"] for found in views}
    return {
        "name": run.name,
        "finished": run.result is not None,
        "updates": run.updates,
        "verdict": result.get("verdict") or _progress(run),
        "tone": tones.pop() if len(tones) == 1 else "neutral",
        "views": views,
        "facts": _facts(run),
        "notes": notes(run.config, result),
        "tasks": tasks_of(result),
        "evals": evals(run.evals),
        "training": curves(run),
        "panels": panels(run.buckets),
        "evolutions": evolutions(run, _initial(run, tasks[0])),
        "race": race(run, result),
        "guards": run.guards,
        "estimates": estimates(run),
        "rollouts": run.rollouts,
        "cost": _cost(run, result),
        "setup": _setup(run.config),
    }


def view(run: RunData, result: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a page shows of one instruction: `result` is its part of the run's, `items` its test rows."""
    test = result.get("test")
    main = main_instruction(test) if test else "rewrite"
    instruction = initial = _initial(run, result)
    rewrite = result.get("rewrite") or (run.events("dev_eval") or [{}])[-1].get("rewrite") or ""
    prompt = shown_prompt(run, result)
    if prompt is not None:  # both sides as the task model reads them
        initial = replace(prompt, instruction=initial, answer_line="", exemplars=()).render("{input}")
        rewrite = prompt.render("{input}")
    before, after = word_diff(initial, rewrite) if rewrite else ([], [])
    return {
        "instruction": instruction,
        "verdict": result.get("verdict", ""),
        "tone": _tone(test, main),
        "initial": initial,
        "rewrite": rewrite,
        "thing": "prompt" if prompt is not None else "rewrite",
        "offsets": prompt.label_offsets if prompt is not None else None,
        "before": before,
        "after": after,
        "scores": scores(test, main) if test else None,
        "dev": _dev(result, test, main),
        "search": search(run, result),
        "waterfall": steps_chart(result),
        "by_labels": by_labels(test, main) if test else None,
        "labels": label_chart(test, main) if test else None,
        "confusions": confusions(items, test, main) if test and items else [],
        "reliability": reliabilities(test) if test else [],
        "flips_found": flips(items, test["baseline"], main) if test and items else None,
    }


def _initial(run: RunData, result: Mapping[str, Any]) -> str:
    for place in (result, run.config.get("config", {}), *run.events("candidate")):
        text = place.get("instruction") or (place.get("rewrite") if place.get("source") == "initial" else "")
        if text:
            return str(text)
    return ""


def _progress(run: RunData) -> str:
    if not run.updates:
        return "The run has started; no update is finished yet."
    return f"In progress, or stopped: {run.updates:,} updates so far, no result yet."


def _tone(test: Mapping[str, Any] | None, main: str) -> str:
    found = (test or {}).get("differences", {}).get(main)
    if not found or not found["significant"]:
        return "neutral"
    return "gain" if found["mean"] > 0 else "loss"


def _facts(run: RunData) -> list[tuple[str, str]]:
    """The line of small facts under the verdict."""
    result, facts = run.result or {}, []
    for part in run.splits:
        rows = ", ".join(f"{part[split]['count']:,} {split}" for split in SPLIT_NAMES)
        facts.append(("data", f"{part['train']['source'] or 'memory'}: {rows} rows"))
    for key, name in (
        ("task_model", "task model"),
        ("rewriter", "rewriter"),
        ("metric", "metric"),
        ("decoding", "decoding"),
    ):
        value = result.get(key) or run.config.get("config", {}).get(key)
        if value:
            facts.append((name, str(value)))
    judged = result.get("fidelity") or {}
    fidelity = judged.get("prompt", judged.get("rewrite"))
    if fidelity is not None:
        facts.append(("fidelity of the wording", f"{fidelity:.2f}"))
    if lengths := result.get("prompt_tokens"):
        facts.append(("tokens of the prompt without its input", prompt_tokens(lengths)))
    calls = result.get("cost", {}).get("task_model", {})
    if "prompts" in calls:
        facts.append(("task-model prompts", f"{calls['prompts']:,}"))
    if "input_tokens" in calls:
        estimated = ", estimated" if calls.get("uncounted") else ""
        facts.append(("tokens", f"{calls['input_tokens']:,} in, {calls.get('output_tokens', 0):,} out{estimated}"))
    if asked := result.get("cost", {}).get("rewriter"):
        facts.append(("the rewriter's server", calls_and_tokens(asked)))
    seconds = result.get("cost", {}).get("seconds", {})
    if seconds:
        facts.append(("time", duration(sum(seconds.values()))))
    return facts


def tasks_of(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Before and after of every instruction, where the run had several."""
    rows = []
    for task in result.get("tasks", []):
        test, dev = task.get("test"), task.get("dev") or {}
        if test:
            means = {name: found["mean"] for name, found in test["instructions"].items()}
            means["rewrite"] = means[test["primary"]]
            gain = test["differences"][test["primary"]]
        else:
            corrected = dev["corrected"]
            means = {"initial": corrected["score"] - corrected["gain"], "rewrite": corrected["score"]}
            gain = {"mean": corrected["gain"], "low": corrected["gain_low"], "high": corrected["gain_high"]}
        rows.append({**means, "instruction": task["instruction"], "text": task["rewrite"], "gain": gain})
    return rows


def evals(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The prompt with other task models, or on other rows; what was measured again stands once, as it is now."""
    by = ("task_model", "data", "split", "decoding", "offsets")
    return list({tuple(row[name] for name in by): dict(row) for row in rows}.values())


def _dev(result: Mapping[str, Any], test: Mapping[str, Any] | None, main: str) -> dict[str, Any] | None:
    """The dev score of the chosen rewrite, never without what corrects it."""
    dev = result.get("dev") or {}
    scores = dev.get("scores", {})
    chosen = scores.get("prompt", scores.get("rewrite"))
    if chosen is None:
        return None
    corrected = dev.get("corrected")
    if test is None and corrected is None:
        return None
    return {
        "n": dev.get("n"),
        "rewrite": chosen,
        "initial": scores.get("initial"),
        "corrected": corrected,
        "test": test["instructions"][main]["mean"] if test else None,
    }


def _cost(run: RunData, result: Mapping[str, Any]) -> dict[str, Any]:
    phases = {name: float(value) for name, value in result.get("cost", {}).get("seconds", {}).items()}
    training = {
        key.removeprefix("time/"): sum(row[key] for row in run.metrics if row.get(key) is not None)
        for key in ("time/rollout", "time/score", "time/update")
    }
    training = {name: seconds for name, seconds in training.items() if seconds}
    calls = result.get("cost", {}).get("task_model", {})
    return {
        "phases": list(phases.items()),
        "phases_chart": stacked_bar("Time by phase", list(phases.items())) if phases else None,
        "training": list(training.items()),
        "training_chart": stacked_bar("Training time by part", list(training.items())) if training else None,
        "sentence": cost_sentence(calls) if calls else "",
    }


def _setup(config: Mapping[str, Any]) -> dict[str, Any]:
    argv = config.get("argv") or []
    return {
        "command": shlex.join(["prewrite", *argv]) if argv else "",
        "settings": [(name, _plain(value)) for name, value in sorted(config.get("config", {}).items())],
        "versions": [(name, str(value)) for name, value in sorted(config.get("versions", {}).items())],
        "version": config.get("prewrite_version", ""),
        "started": _minute(config),
        "resumed": [(_minute(part), _changes(part.get("changed", {}))) for part in config.get("resumed", [])],
    }


def _minute(record: Mapping[str, Any]) -> str:
    """When a run, or a later part of it, began."""
    return str(record.get("started", ""))[:16].replace("T", " ")


def _changes(changed: Mapping[str, Sequence[Any]]) -> str:
    """The settings that were changed when the run was resumed."""
    told = "; ".join(f"{name}: {_plain(was)} → {_plain(now)}" for name, (was, now) in changed.items())
    return told or "with the same settings"


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
