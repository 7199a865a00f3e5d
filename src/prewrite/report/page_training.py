"""The page's part on training: curves, sampled rollouts, greedy rewrites over time, a reward model's estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from prewrite.report.charts import Chart, Series, line_chart, scatter, shorten
from prewrite.report.diff import word_diff
from prewrite.report.formats import cut, percent, points_tick
from prewrite.report.read import Bucket, RunData

STEPS_SHOWN = 10


def curves(run: RunData) -> list[Chart]:
    """Reward, KL, fidelity, entropy and dev score over the updates; those that the run has. Dev begins at update 0."""
    if not run.buckets:
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
    for row in sorted((row for row in run.metrics if row["step"] > 0), key=lambda row: row["step"]):
        while row["step"] > run.buckets[place].last:
            place += 1
        value = row.get(key)
        if value is not None:
            values[place].append(value)
    return [sum(found) / len(found) if found else None for found in values]


def panels(buckets: Sequence[Bucket]) -> list[dict[str, Any]]:
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


def evolutions(run: RunData, initial: str) -> list[dict[str, Any]]:
    """The evolution of each instruction's greedy rewrite, in the order of the run; those that have one."""
    events: dict[str, list[dict[str, Any]]] = {}
    for row in run.events("dev_eval"):
        events.setdefault(row.get("instruction") or initial, []).append(row)
    told = [{"instruction": name, "steps": evolution(rows, name)} for name, rows in events.items()]
    return [one for one in told if one["steps"]]


def evolution(events: Sequence[Mapping[str, Any]], initial: str) -> list[dict[str, Any]]:
    """The greedy rewrite whenever it changed, each marked against the one before; the first and last always shown."""
    steps, previous = [], initial
    for row in events:
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
        step["pieces"] = word_diff(cut(step["previous"]), cut(step["rewrite"]))[1]
    return steps


def estimates(run: RunData) -> dict[str, Any] | None:
    """A reward model's estimates beside the task model's grades, where a run has both."""
    found = run.estimates
    if not found.both:
        return None
    return {
        "alone": found.alone / (found.alone + found.both),
        "rollouts": found.alone + found.both,
        "error": _mean_of(run, "reward_model/error"),
        "rank": _mean_of(run, "reward_model/rank"),
        "chart": scatter("Grade over estimate", found.points),
        "farthest": found.farthest,
    }


def _mean_of(run: RunData, key: str) -> float | None:
    values = [value for value in _bucketed(run, key) if value is not None]
    return sum(values) / len(values) if values else None
