"""The page's part on the choice: the race of the candidates on dev items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prewrite.report.charts import Series, line_chart, shorten
from prewrite.report.formats import percent, points_tick
from prewrite.report.read import RunData


def race(run: RunData, result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Every candidate, how far it came and why it left; None before there are candidates."""
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
