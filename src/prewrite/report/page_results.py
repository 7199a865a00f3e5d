"""The page's part on the test: scores with intervals, accuracy per label, reliability, rows that changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from prewrite.choosing.evaluation import calibrated_note
from prewrite.errors import RunFolderError
from prewrite.report.charts import Chart, forest, grouped_bars, reliability_diagram, shorten
from prewrite.report.formats import cut

FLIPS_OPEN, FLIPS_SHOWN = 8, 40
"""Per direction: in view, and in the page at all. All of them stand in `items.jsonl`."""


def main_instruction(test: Mapping[str, Any]) -> str:
    """The instruction that the report is about: the primary one, else the first that is not the baseline."""
    names: list[str] = list(test["instructions"])
    primary: str | None = test["primary"]
    return primary or next((name for name in names if name != test["baseline"]), names[0])


def scores(test: Mapping[str, Any], main: str) -> dict[str, Any]:
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
                "gain_over": test["gains_over"].get(name),
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
        "calibrated": calibrated_note(test, main, in_points=True),
        "chart": forest(f"Score on {test['n']} {test['rows']} rows with {level} intervals", drawn, zero=False),
    }


def _style(name: str, baseline: str, main: str) -> str:
    return "main" if name == main else "base" if name == baseline else "other"


def label_chart(test: Mapping[str, Any], main: str) -> Chart | None:
    """Accuracy of each label before and after; None where answers are no labels."""
    baseline = test["baseline"]
    names = [baseline] if main == baseline else [baseline, main]
    found = {name: {row["label"]: row for row in test["instructions"][name]["labels"]} for name in names}
    if not found[baseline]:
        return None
    groups = [
        (
            f"{shorten(label, 11)} ({row['n']})",
            [(name, found[name].get(label, {}).get("accuracy"), _style(name, baseline, main)) for name in names],
        )
        for label, row in found[baseline].items()
    ]
    return grouped_bars("Accuracy per label", groups)


MOST_LABELS = 12
"""A wider table of labels is no longer read."""


def confusions(items: Sequence[Mapping[str, Any]], test: Mapping[str, Any], main: str) -> list[dict[str, Any]]:
    """Gold label by given label, in rows, before and after; none where answers are no labels, or very many."""
    labels = [row["label"] for row in test["instructions"][test["baseline"]]["labels"]]
    if not 2 <= len(labels) <= MOST_LABELS:
        return []
    found = []
    for name in dict.fromkeys([test["baseline"], main]):
        counts = Counter((item["gold"][0], item["answers"][name]["prediction"]) for item in items)
        others = any(given not in labels for _, given in counts)
        rows = [
            {
                "gold": gold,
                "counts": [counts[gold, given] for given in labels],
                "other": sum(count for (g, given), count in counts.items() if g == gold and given not in labels),
            }
            for gold in labels
        ]
        style = _style(name, test["baseline"], main)
        found.append({"name": name, "style": style, "labels": labels, "rows": rows, "others": others})
    return found


def by_labels(test: Mapping[str, Any], main: str) -> dict[str, Any] | None:
    """What arithmetic on the label scores brings by itself, as a share; None where that was not measured.

    After a search: label offsets alone. Of a wording: what is left of its gain after batch calibration.
    """
    offsets = test["differences"].get("label offsets")
    if offsets is not None:
        return {"gain": offsets, "words": "points by label offsets alone, with no other change"}
    left = test["calibrated"].get(main)
    first, second = (test["instructions"][name] for name in (test["baseline"], main))
    if left is None or first["instruction"] == second["instruction"]:
        return None
    return {"gain": left, "words": "points are left where the labels are calibrated under both"}


def reliabilities(test: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How far confidence and accuracy agree, before and after, where answers have a confidence."""
    main = main_instruction(test)
    shown: list[dict[str, Any]] = []
    for name in dict.fromkeys([test["baseline"], main]):
        found = test["instructions"][name]["reliability"]
        if found:
            bins = [(row["confidence"], row["accuracy"], row["count"]) for row in found["bins"]]
            style = _style(name, test["baseline"], main)
            chart = reliability_diagram(f"Reliability: {name}", bins, style)
            shown.append({"name": name, "chart": chart, "ece": found["ece"], "brier": found["brier"]})
    return shown


def flips(items: Sequence[Mapping[str, Any]], baseline: str, main: str) -> dict[str, Any]:
    """Rows whose score rose, and rows whose score fell. Raises `RunFolderError` where answers are missing."""
    gained: list[dict[str, Any]] = []
    lost: list[dict[str, Any]] = []
    for item in items:
        before, after = item["answers"].get(baseline), item["answers"].get(main)
        if before is None or after is None:
            raise RunFolderError(f"items.jsonl has no answers of {baseline!r} and {main!r} for every item")
        change = after["score"] - before["score"]
        if change:
            shown = {
                "input": cut(item["input"]),
                "gold": " | ".join(item["gold"]),
                "before": {**before, "prompt": cut(before["prompt"]), "output": cut(before["output"])},
                "after": {**after, "prompt": cut(after["prompt"]), "output": cut(after["output"])},
            }
            (gained if change > 0 else lost).append(shown)
    return {
        "gained": gained[:FLIPS_SHOWN],
        "lost": lost[:FLIPS_SHOWN],
        "open": FLIPS_OPEN,
        "gained_total": len(gained),
        "lost_total": len(lost),
    }
