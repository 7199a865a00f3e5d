"""From what a run's files say to what its page shows: numbers, words and drawings, no markup of the page itself."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from prewrite.errors import RunFolderError
from prewrite.report.charts import (
    Chart,
    Series,
    forest,
    grouped_bars,
    line_chart,
    reliability,
    scatter,
    shorten,
    stacked_bar,
)
from prewrite.report.diff import word_diff
from prewrite.report.read import Bucket, RunData

FLIPS_OPEN, FLIPS_SHOWN = 8, 40
"""Per direction: in view, and in the page at all. All of them stand in `items.jsonl`."""
TEXT_SHOWN = 4_000
"""Characters of a prompt; the rewrite itself is never cut."""
STEPS_SHOWN = 10
NONE = "–"  # noqa: RUF001


def build_page(run: RunData) -> dict[str, Any]:
    """The values that `template.html` and `report.md` are filled with."""
    result = run.result or {}
    test = result.get("test")
    main = main_instruction(test) if test else "rewrite"
    initial = _initial(run)
    rewrite = result.get("rewrite") or (run.events("dev_eval") or [{}])[-1].get("rewrite") or ""
    before, after = word_diff(initial, rewrite) if rewrite else ([], [])
    charts = _training(run)
    return {
        "name": run.name,
        "finished": run.result is not None,
        "updates": run.metrics[-1]["step"] if run.metrics else 0,
        "verdict": result.get("verdict") or _progress(run),
        "tone": _tone(test, main),
        "initial": initial,
        "rewrite": rewrite,
        "before": before,
        "after": after,
        "facts": _facts(run),
        "scores": _scores(test, main) if test else None,
        "dev": _dev(result, test, main),
        "tasks": _tasks(result),
        "training": charts,
        "samples": _samples(run.buckets),
        "evolution": _evolution(run, initial),
        "race": _race(run, result, test, main),
        "labels": _labels(test, main) if test else None,
        "calibration": _calibrations(test) if test else [],
        "flips_found": _flips(run.items, test["baseline"], main) if test and run.items else None,
        "guards": run.guards,
        "estimates": _estimates(run),
        "rollouts": run.rollouts,
        "cost": _cost(run, result),
        "setup": _setup(run.config),
    }


def main_instruction(test: Mapping[str, Any]) -> str:
    """The instruction that the report is about: `rewrite`, else the first that is not the baseline."""
    names: list[str] = list(test["instructions"])
    if "rewrite" in names:
        return "rewrite"
    return next((name for name in names if name != test["baseline"]), names[0])


def percent(share: float | None) -> str:
    """A share as points with one decimal; a dash where there is none."""
    return NONE if share is None else f"{100 * share:.1f}"


def points_tick(share: float) -> str:
    """A share on an axis, in points."""
    return f"{100 * share:.4g}"


def signed(share: float) -> str:
    """A difference of shares in points, with its sign; a true minus sign, so that columns line up."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")  # noqa: RUF001


def pvalue(p: float) -> str:
    """A p-value with two digits that matter."""
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def duration(seconds: float) -> str:
    """Seconds in the two largest units that a person would name."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def _initial(run: RunData) -> str:
    for place in (run.result or {}, run.config.get("config", {}), *run.events("candidate")):
        text = place.get("instruction") or (place.get("rewrite") if place.get("source") == "initial" else "")
        if text:
            return str(text)
    return ""


def _progress(run: RunData) -> str:
    if not run.metrics:
        return "The run has started; no update is finished yet."
    return f"In progress, or stopped: {run.metrics[-1]['step']:,} updates so far, no result yet."


def _tone(test: Mapping[str, Any] | None, main: str) -> str:
    found = (test or {}).get("differences", {}).get(main)
    if not found or not found["significant"]:
        return "neutral"
    return "gain" if found["mean"] > 0 else "loss"


def _facts(run: RunData) -> list[tuple[str, str]]:
    """The line of small facts under the verdict."""
    result, facts = run.result or {}, []
    for key, name in (
        ("task_model", "task model"),
        ("rewriter", "rewriter"),
        ("metric", "metric"),
        ("decoding", "decoding"),
    ):
        value = result.get(key) or run.config.get("config", {}).get(key)
        if value:
            facts.append((name, str(value)))
    fidelity = (result.get("fidelity") or {}).get("rewrite")
    if fidelity is not None:
        facts.append(("fidelity of the rewrite", f"{fidelity:.2f}"))
    calls = result.get("cost", {}).get("task_model", {})
    if "prompts" in calls:
        facts.append(("task-model prompts", f"{calls['prompts']:,}"))
    seconds = result.get("cost", {}).get("seconds", {})
    if seconds:
        facts.append(("time", duration(sum(seconds.values()))))
    return facts


def _scores(test: Mapping[str, Any], main: str) -> dict[str, Any]:
    """Every instruction on the test rows, and the two drawings of it."""
    baseline, rows = test["baseline"], []
    for name, found in test["instructions"].items():
        rows.append(
            {
                "name": name,
                "style": _style(name, baseline, main),
                "instruction": found["instruction"],
                "mean": found["mean"],
                "low": found["interval"]["low"],
                "high": found["interval"]["high"],
                "difference": test["differences"].get(name),
            }
        )
    level = f"{test['level']:.0%}"
    drawn = [(row["name"], row["mean"], row["low"], row["high"], row["style"]) for row in rows]
    return {
        "rows": rows,
        "main": next(row for row in rows if row["name"] == main),
        "baseline": next(row for row in rows if row["name"] == baseline),
        "split": test["rows"],
        "n": test["n"],
        "level": level,
        "chart": forest(
            "scores", f"Score on {test['n']} {test['rows']} rows with {level} intervals", drawn, zero=False
        ),
    }


def _tasks(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Before and after of every instruction, where the run had several; the rest of the page is about the first."""
    rows = []
    for task in result.get("tasks", []):
        test, dev = task.get("test"), task.get("dev") or {}
        if test:
            means = {name: found["mean"] for name, found in test["instructions"].items()}
            gain = test["differences"]["rewrite"]
        else:
            corrected = dev["corrected"]
            means = {"initial": corrected["score"] - corrected["gain"], "rewrite": corrected["score"]}
            gain = {"mean": corrected["gain"], "low": corrected["gain_low"], "high": corrected["gain_high"]}
        rows.append({**means, "instruction": task["instruction"], "text": task["rewrite"], "gain": gain})
    return rows


def _style(name: str, baseline: str, main: str) -> str:
    return "main" if name == main else "base" if name == baseline else "other"


def _dev(result: Mapping[str, Any], test: Mapping[str, Any] | None, main: str) -> dict[str, Any] | None:
    """The dev score of the chosen rewrite, never without what corrects it."""
    dev = result.get("dev") or {}
    scores = dev.get("scores", {})
    if "rewrite" not in scores:
        return None
    corrected = dev.get("corrected")
    if test is None and corrected is None:
        return None
    return {
        "n": dev.get("n"),
        "rewrite": scores["rewrite"],
        "initial": scores.get("initial"),
        "corrected": corrected,
        "test": test["instructions"][main]["mean"] if test else None,
    }


def _training(run: RunData) -> list[Chart]:
    if not run.metrics:
        return []
    xs = [(bucket.first + bucket.last) / 2 for bucket in run.buckets]
    charts = []
    for key, title, caption in (
        ("reward/mean", "Reward", "mean over rollouts; the band shows ± one standard deviation"),
        ("kl/mean", "KL to the reference model", "nats per rollout"),
        ("fidelity/mean", "Fidelity", "share of the instruction that rollouts tell"),
        ("entropy/mean", "Entropy of the rewriter", "nats per token"),
    ):
        means = _bucketed(run, key)
        if all(mean is None for mean in means):
            continue
        low = high = None
        spread = _bucketed(run, "reward/std") if key == "reward/mean" else [None]
        if all(value is not None for value in [*means, *spread]):
            low = [m - s for m, s in zip(means, spread, strict=False)] if key == "reward/mean" else None  # type: ignore[operator]
            high = [m + s for m, s in zip(means, spread, strict=False)] if key == "reward/mean" else None  # type: ignore[operator]
        line = Series(key, xs, means, "main", low, high)
        charts.append(line_chart("chart-" + key.split("/")[0], title, [line], caption=caption))
    dev = [(row["step"], row["dev/score"]) for row in run.metrics if row.get("dev/score") is not None]
    if dev:
        line = Series("dev score", [step for step, _ in dev], [score for _, score in dev], "main", dots=True)
        caption = "greedy rewrite on the dev set, in points"
        charts.append(
            line_chart("chart-dev", "Dev score", [line], y_text=percent, tick_text=points_tick, caption=caption)
        )
    return charts


def _bucketed(run: RunData, key: str) -> list[float | None]:
    """Mean of a metric per bucket; None where no row of it has the metric."""
    values: list[list[float]] = [[] for _ in run.buckets]
    place = 0
    for row in sorted(run.metrics, key=lambda row: row["step"]):
        while row["step"] > run.buckets[place].last:
            place += 1
        value = row.get(key)
        if value is not None:
            if not isinstance(value, (int, float)):
                raise RunFolderError(f"{run.folder.metrics}: {key} is {value!r} at step {row['step']}, not a number")
            values[place].append(value)
    return [sum(found) / len(found) if found else None for found in values]


def _samples(buckets: Sequence[Bucket]) -> list[dict[str, Any]]:
    """What the panel under the curves shows at each point."""
    return [
        {
            "x": (bucket.first + bucket.last) / 2,
            "updates": str(bucket.first) if bucket.first == bucket.last else f"{bucket.first}–{bucket.last}",  # noqa: RUF001
            "rollouts": bucket.count,
            "distinct": len(bucket.distinct),
            "best": shorten(bucket.best, 400),
            "best_reward": round(bucket.best_reward, 4),
            "other": shorten(bucket.other, 400),
            "other_reward": round(bucket.other_reward, 4),
        }
        for bucket in buckets
        if bucket.count
    ]


def _evolution(run: RunData, initial: str) -> list[dict[str, Any]]:
    """The greedy rewrite whenever it changed, each marked against the one before; the first and last always shown."""
    steps, previous = [], initial
    for row in run.events("dev_eval"):
        rewrite = row.get("rewrite")
        if rewrite is None or rewrite == previous:
            continue
        steps.append({"step": row.get("step"), "score": row.get("score"), "rewrite": rewrite, "previous": previous})
        previous = rewrite
    if len(steps) > STEPS_SHOWN:
        kept = sorted({round(i * (len(steps) - 1) / (STEPS_SHOWN - 1)) for i in range(STEPS_SHOWN)})
        steps = [steps[i] for i in kept]
        for earlier, later in pairwise(steps):
            later["previous"] = earlier["rewrite"]
    for step in steps:
        step["pieces"] = word_diff(_cut(step["previous"]), _cut(step["rewrite"]))[1]
    return steps


def _race(run: RunData, result: Mapping[str, Any], test: Mapping[str, Any] | None, main: str) -> dict[str, Any] | None:
    candidates = run.events("candidate")
    selected = next(reversed(run.events("selected")), None)
    if not candidates:
        return None
    rounds = run.events("race_round")
    out = {row["index"]: row for row in run.events("eliminated")}
    chosen = selected["index"] if selected else None
    lines, rows = [], []
    for candidate in candidates:
        index = candidate["index"]
        path = [(r["items"], r["scores"][str(index)]) for r in rounds if str(index) in r["scores"]]
        won = index == chosen
        style = "main" if won else "base" if candidate["source"] == "initial" else "other"
        name = f"#{index} {candidate['source'].replace('_', ' ')}"
        if path:
            lines.append(
                Series(
                    name,
                    [items for items, _ in path],
                    [score for _, score in path],
                    style,
                    end="won" if won else "out" if index in out else None,
                    note=shorten(candidate["rewrite"], 160),
                )
            )
        last = path[-1] if path else (None, None)
        rows.append(
            {
                "name": name,
                "style": style,
                "rewrite": candidate["rewrite"],
                "count": candidate.get("count", 1),
                "seen": last[0] if path else (selected or {}).get("items"),
                "score": last[1] if path else None,
                "won": won,
                "fate": _fate(index, won, out, selected),
            }
        )
    rows.sort(key=lambda row: (not row["won"], -(row["seen"] or 0), -(row["score"] or 0)))
    lines.sort(key=lambda line: ("other", "base", "main").index(line.style))
    chart = None
    if lines:
        chart = line_chart(
            "chart-race",
            "The race",
            lines,
            x_name="dev items",
            y_text=percent,
            tick_text=points_tick,
            nearest="xy",
            caption="running mean score on dev items, in points; a cross marks where a candidate was dropped",
        )
    return {"chart": chart, "rows": rows, "selected": selected, "setup": result.get("selection", {})}


def _fate(index: int, won: bool, out: Mapping[int, Mapping[str, Any]], selected: Mapping[str, Any] | None) -> str:
    if won:
        return "chosen"
    if index in out:
        row = out[index]
        return (
            f"dropped after {row['items']} items: {percent(row['score'])} against "
            f"{percent(row['rival_score'])} of #{row['rival']}"
        )
    return "scored to the end, not the best" if selected else "in the race"


def _labels(test: Mapping[str, Any], main: str) -> Chart | None:
    baseline = test["baseline"]
    names = [baseline] if main == baseline else [baseline, main]
    found = {name: {row["label"]: row for row in test["instructions"][name]["labels"]} for name in names}
    if not found[baseline]:
        return None
    groups = [
        (
            f"{shorten(label, 11)} ({row['n']})",
            [(name, found[name][label]["accuracy"], _style(name, baseline, main)) for name in names],
        )
        for label, row in found[baseline].items()
    ]
    return grouped_bars("chart-labels", "Accuracy per label", groups)


def _calibrations(test: Mapping[str, Any]) -> list[dict[str, Any]]:
    main = main_instruction(test)
    shown: list[dict[str, Any]] = []
    for name in dict.fromkeys([test["baseline"], main]):
        found = test["instructions"][name].get("calibration")
        if found:
            bins = [(row["confidence"], row["accuracy"], row["count"]) for row in found["bins"]]
            style = _style(name, test["baseline"], main)
            chart = reliability(f"chart-calibration-{len(shown)}", f"Calibration: {name}", bins, style)
            shown.append({"name": name, "chart": chart, "ece": found["ece"], "brier": found["brier"]})
    return shown


def _flips(items: Sequence[Mapping[str, Any]], baseline: str, main: str) -> dict[str, Any]:
    gained: list[dict[str, Any]] = []
    lost: list[dict[str, Any]] = []
    for item in items:
        before, after = item["answers"].get(baseline), item["answers"].get(main)
        if before is None or after is None:
            raise RunFolderError(f"items.jsonl has no answers of {baseline!r} and {main!r} for every item")
        change = after["score"] - before["score"]
        if change:
            shown = {
                "input": _cut(item["input"]),
                "gold": " | ".join(item["gold"]),
                "before": {**before, "prompt": _cut(before["prompt"]), "output": _cut(before["output"])},
                "after": {**after, "prompt": _cut(after["prompt"]), "output": _cut(after["output"])},
            }
            (gained if change > 0 else lost).append(shown)
    return {
        "gained": gained[:FLIPS_SHOWN],
        "lost": lost[:FLIPS_SHOWN],
        "open": FLIPS_OPEN,
        "gained_total": len(gained),
        "lost_total": len(lost),
    }


def _estimates(run: RunData) -> dict[str, Any] | None:
    """A reward model's estimates beside the task model's grades, where a run has both."""
    found = run.estimates
    if not found.both:
        return None
    return {
        "alone": found.alone / (found.alone + found.both),
        "rollouts": found.alone + found.both,
        "error": _mean_of(run, "reward_model/error"),
        "rank": _mean_of(run, "reward_model/rank"),
        "chart": scatter("chart-estimates", "Grade over estimate", found.points),
        "farthest": found.farthest,
    }


def _mean_of(run: RunData, key: str) -> float | None:
    values = [value for value in _bucketed(run, key) if value is not None]
    return sum(values) / len(values) if values else None


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
        "phases_chart": stacked_bar("chart-phases", "Time by phase", list(phases.items())) if phases else None,
        "training": list(training.items()),
        "training_chart": stacked_bar("chart-training", "Training time by part", list(training.items()))
        if training
        else None,
        "calls": calls,
    }


def _setup(config: Mapping[str, Any]) -> dict[str, Any]:
    argv = config.get("argv") or []
    return {
        "command": shlex.join(["prewrite", *argv]) if argv else "",
        "settings": [(name, _plain(value)) for name, value in sorted(config.get("config", {}).items())],
        "versions": [(name, str(value)) for name, value in sorted(config.get("versions", {}).items())],
        "version": config.get("prewrite_version", ""),
        "started": str(config.get("started", ""))[:16].replace("T", " "),
    }


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _cut(text: str) -> str:
    if len(text) <= TEXT_SHOWN:
        return text
    return f"{text[:TEXT_SHOWN]} … ({len(text) - TEXT_SHOWN:,} more characters)"
