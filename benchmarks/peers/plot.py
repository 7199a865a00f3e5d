"""A picture of accuracy against calls: a dot for each arm and budget, the mean over its cells."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from benchmarks.peers.arms import ARMS

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 420, 60, 470, 40, 370
"""Pixels: the picture, and the box of the axes in it; the names stand at the right."""
OURS, THEIRS, START, INK, LINE = "#0a5fd0", "#c2410c", "#6e7781", "#1f2328", "#d0d7de"


def draw(cells: Sequence[dict[str, Any]], frame: str) -> str:
    """The picture of one frame as SVG; arms that read likelihoods are left out.

    A dot is the mean over the data sets and seeds that every arm has run with that budget.
    """
    dots = []
    shown = [cell for cell in cells if cell["frame"] == frame and not ARMS[cell["arm"]].likelihood]
    for budget in sorted({cell["budget"] for cell in shown}):
        here = [cell for cell in shown if cell["budget"] == budget]
        run = {arm: {_drawn(cell) for cell in here if cell["arm"] == arm} for arm in ARMS}
        common = set.intersection(*filter(None, run.values()))
        for arm in ARMS:
            mine = [cell for cell in here if cell["arm"] == arm and _drawn(cell) in common]
            if mine:
                calls = float(np.mean([cell["calls"] for cell in mine]))
                dots.append((arm, calls, float(np.mean([np.mean(cell["scores"]) for cell in mine])), budget))
    most = max((dot[1] for dot in dots), default=0.0) * 1.05 or 1.0
    low = np.floor(min((dot[2] for dot in dots), default=0.0) * 20) / 20
    high = np.ceil(max((dot[2] for dot in dots), default=1.0) * 20) / 20
    high = high if high > low else low + 0.05

    def place(calls: float, accuracy: float) -> tuple[float, float]:
        return LEFT + (RIGHT - LEFT) * calls / most, BOTTOM - (BOTTOM - TOP) * (accuracy - low) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img" font-family="system-ui, sans-serif" font-size="13">',
        "<title>Test accuracy against task-model calls of the search</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" fill="{INK}">Test accuracy, mean of the data sets, against task calls</text>',
    ]
    for accuracy in np.arange(low, high + 1e-9, 0.05):
        _, y = place(0, accuracy)
        parts.append(f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{LINE}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="{INK}">{accuracy:.2f}</text>')
    for calls in np.linspace(0, most, 5):
        x, _ = place(calls, low)
        parts.append(
            f'<text x="{x:.1f}" y="{BOTTOM + 18}" text-anchor="middle" fill="{INK}">{round(calls, -1):,.0f}</text>'
        )
    parts.append(f'<text x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 38}" text-anchor="middle" fill="{INK}">calls</text>')
    for number, (arm, calls, accuracy, budget) in enumerate(sorted(dots, key=lambda dot: -dot[2]), start=1):
        x, y = place(calls, accuracy)
        colour = START if arm == "initial" else OURS if ARMS[arm].ours else THEIRS
        name = escape(f"{number}. {ARMS[arm].name}, {accuracy:.3f}")
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"><title>{name}, {budget:,}</title></circle>'
        )
        parts.append(f'<text x="{x + 7:.1f}" y="{y - 5:.1f}" font-size="10" fill="{colour}">{number}</text>')
        parts.append(f'<text x="{RIGHT + 20}" y="{TOP + 18 * number}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _drawn(cell: dict[str, Any]) -> tuple[str, int]:
    """Which rows the cell had."""
    return cell["data"], cell["seed"]
