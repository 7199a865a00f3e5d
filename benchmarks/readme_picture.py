"""The README's picture: accuracy before and after a search of the whole prompt, from the table of docs/results.md.

    python benchmarks/readme_picture.py

writes docs/before_after.svg. Each row is a data set. A grey dot is the initial instruction, a blue dot the prompt that
one seed found, and a hollow diamond the initial instruction with label offsets alone, which are arithmetic: a dot to
the right of the diamond does better than that.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parents[1] / "docs"
WIDTH = 760
LEFT, RIGHT, TOP, STEP = 120, 730, 84, 40
"""Pixels: where the axis begins and ends, where the first row stands, and from row to row."""
LOW, HIGH = 0.3, 0.9
"""Accuracies at the two ends of the axis."""
CALLS = "1,000"
"""The task-model calls of the searches that are drawn."""
GREY, BLUE, INK, LINE = "#6e7781", "#0a5fd0", "#1f2328", "#d0d7de"


class Row(NamedTuple):
    """One data set; accuracies on test rows in [0, 1]."""

    data: str
    before: float
    calibrated: float
    """The initial instruction with label offsets alone; mean over the seeds."""
    after: tuple[float, ...]
    """The prompt of each seed, found without wordings: the default with so many calls."""


def read_rows(results: str) -> list[Row]:
    """The data sets of the first table of docs/results.md, which has a line for each seed, in their order."""
    seeds: dict[str, list[list[float]]] = {}
    for line in results.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        if len(cells) == 10 and cells[1] == CALLS and re.fullmatch(r"\d", cells[2]):  # data, calls, seed, arms
            seeds.setdefault(cells[0], []).append([float(cell) for cell in cells[3:]])
    return [
        Row(data, found[0][0], sum(arms[1] for arms in found) / len(found), tuple(arms[4] for arms in found))
        for data, found in seeds.items()
    ]


def draw(rows: Sequence[Row]) -> str:
    """The picture as SVG."""
    bottom = TOP + STEP * (len(rows) - 1) + 22
    height = bottom + 46
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" font-family="system-ui, sans-serif" font-size="14">',
        f"<title>{escape(title(rows))}</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
        f'<text x="20" y="28" fill="{INK}" font-weight="600">Share of right answers on test rows</text>',
        *legend(20, 52),
    ]
    for tick in range(round(LOW * 10), round(HIGH * 10) + 1):
        x = place(tick / 10)
        parts.append(f'<path d="M{x:.1f} {TOP - 18}V{bottom}" stroke="{LINE}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 20}" fill="{GREY}" text-anchor="middle">{tick / 10:.1f}</text>')
    for at, row in enumerate(rows):
        parts += draw_row(row, TOP + STEP * at)
    return "\n".join([*parts, "</svg>", ""])


def draw_row(row: Row, y: int) -> list[str]:
    """A name, the way from before to the mean after, and the marks on it."""
    mean = sum(row.after) / len(row.after)
    return [
        f'<text x="20" y="{y + 5}" fill="{INK}">{escape(row.data)}</text>',
        f'<path d="M{place(row.before):.1f} {y}H{place(mean):.1f}" stroke="{BLUE}" stroke-width="2" opacity="0.35"/>',
        diamond(place(row.calibrated), y),
        dot(place(row.before), y, GREY),
        *(dot(place(after), y, BLUE) for after in row.after),
    ]


def legend(x: int, y: int) -> list[str]:
    """What the three marks mean, in a line."""
    marks = [
        (dot(x + 5, y - 5, GREY), x + 18, "your instruction"),
        (dot(x + 155, y - 5, BLUE), x + 168, "the prompt found, one dot a search"),
        (diamond(x + 450, y - 5), x + 464, "your instruction, label offsets alone"),
    ]
    return [f'{mark}<text x="{start}" y="{y}" fill="{INK}">{text}</text>' for mark, start, text in marks]


def dot(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y}" r="6" fill="{colour}" fill-opacity="0.85"/>'


def diamond(x: float, y: float) -> str:
    return f'<path d="M{x:.1f} {y - 11}l11 11l-11 11l-11 -11z" fill="#ffffff" stroke="{INK}" stroke-width="1.5"/>'


def place(accuracy: float) -> float:
    """The pixel of an accuracy on the axis."""
    return LEFT + (accuracy - LOW) / (HIGH - LOW) * (RIGHT - LEFT)


def title(rows: Sequence[Row]) -> str:
    """The picture in words, for who cannot see it."""
    lines = [
        f"{row.data}: {row.before:.3f} before, {', '.join(f'{after:.3f}' for after in row.after)} after, "
        f"{row.calibrated:.3f} by label offsets alone"
        for row in rows
    ]
    return "Share of right answers on test rows. " + "; ".join(lines) + "."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DOCS / "before_after.svg")
    output = parser.parse_args().output
    output.write_text(draw(read_rows((DOCS / "results.md").read_text(encoding="utf-8"))), encoding="utf-8")
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
