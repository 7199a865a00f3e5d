"""Charts as SVG, drawn here so that a page shows them without a script; `script.js` only adds what hovering shows.

Every text goes through `Markup.format`, which escapes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

WIDTH, HEIGHT = 460, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 28


@dataclass(frozen=True, slots=True)
class Series:
    """One line: `style` is a CSS class. A None in `ys` is a gap."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float | None]
    style: str = "main"
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    """Bounds of the band around the line, if both are given."""
    dots: bool = False
    end: str | None = None
    """A mark at the last point: `out` or `won`."""
    note: str = ""
    """What hovering shows below the value."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing, and where its script answers the pointer, what it needs for that, in the drawing's own units."""

    title: str
    svg: Markup
    caption: str = ""
    id: str = ""
    """Of the drawing in its page, where the script finds it."""
    hover: dict[str, Any] = field(default_factory=dict)


def line_chart(
    id: str,
    title: str,
    series: Sequence[Series],
    *,
    x_name: str = "update",
    y_text: Callable[[float], str] = lambda value: f"{value:.3g}",
    tick_text: Callable[[float], str] = lambda value: f"{value:g}",
    nearest: str = "x",
    bounds: tuple[float, float] | None = None,
    caption: str = "",
) -> Chart:
    """Lines over a common x. `nearest` is `x` (hovering reads all lines at one x) or `xy` (the closest point)."""
    xs = [x for line in series for x in line.xs]
    ys = [y for line in series for y in (*line.ys, *(line.low or ()), *(line.high or ())) if y is not None]
    x_low, x_high = _span(xs)
    y_ticks = nice_ticks(*(bounds or _span(ys)))
    y_low, y_high = (min(y_ticks[0], min(ys, default=0)), max(y_ticks[-1], max(ys, default=1)))

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            round(LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT), 1),
            round(TOP + (y_high - y) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM), 1),
        )

    body = Markup("")
    for tick in y_ticks:
        y = place(x_low, tick)[1]
        body += Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH - RIGHT, y, y)
        body += Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>').format(
            LEFT - 7, y + 4, tick_text(tick)
        )
    for tick in nice_ticks(x_low, x_high, 5):
        if x_low <= tick <= x_high and tick == round(tick):  # updates, rows: there is no half of one
            body += Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(
                place(tick, y_low)[0], HEIGHT - 9, f"{tick:,.0f}"
            )
    hover = []
    for line in series:
        body += _line(line, place)
        hover.append(
            {
                "name": line.name,
                "style": line.style,
                "note": line.note,
                "points": [
                    [*place(x, y), x, y_text(y)] for x, y in zip(line.xs, line.ys, strict=True) if y is not None
                ],
            }
        )
    svg = _svg(title, WIDTH, HEIGHT, body, id=id)
    return Chart(title, svg, caption, id, {"nearest": nearest, "x": x_name, "series": hover})


def forest(title: str, rows: Sequence[tuple[str, float, float, float, str]], *, zero: bool) -> Chart:
    """Estimates with intervals, one row each: (name, value, low, high, style), as shares, drawn in points.

    `zero` draws the line of no difference.
    """
    left, right, row_height, width = 158, 18, 30, 540
    height = row_height * len(rows) + 30
    lows, highs = [row[2] for row in rows], [row[3] for row in rows]
    low, high = _span([*lows, *highs, 0.0] if zero else [*lows, *highs])
    ticks = nice_ticks(100 * low, 100 * high, 5)
    low, high = min(low, ticks[0] / 100), max(high, ticks[-1] / 100)

    def place(share: float) -> float:
        return round(left + (share - low) / (high - low) * (width - left - right), 1)

    body = Markup("")
    for tick in ticks:
        x = place(tick / 100)
        style = "zero" if zero and tick == 0 else "grid"
        body += Markup('<line class="{}" x1="{}" x2="{}" y1="4" y2="{}"/>').format(style, x, x, height - 24)
        text = f"{tick:+.4g}" if zero and tick else f"{tick:.4g}"
        body += Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(x, height - 8, text)
    for index, (name, value, row_low, row_high, style) in enumerate(rows):
        y = row_height * index + 20
        body += Markup(
            '<g class="{style}"><text class="name" x="{x0}" y="{ty}" text-anchor="end">{name}</text>'
            '<line class="whisker" x1="{x1}" x2="{x2}" y1="{y}" y2="{y}"/>'
            '<circle class="dot" cx="{x}" cy="{y}" r="5"/>'
            "<title>{tip}</title></g>"
        ).format(
            style=style,
            x0=left - 14,
            ty=y + 4,
            name=shorten(name, 19),
            x1=place(row_low),
            x2=place(row_high),
            y=y,
            x=place(value),
            tip=f"{name}: {100 * value:.1f} ({100 * row_low:.1f} to {100 * row_high:.1f})",
        )
    return Chart(title, _svg(title, width, height, body))


def grouped_bars(title: str, groups: Sequence[tuple[str, Sequence[tuple[str, float | None, str]]]]) -> Chart:
    """Horizontal bars of shares: (group, [(name, share, style)]), e.g. one group per label."""
    left, right, bar, gap, width = 128, 48, 13, 14, 520
    body, y = Markup(""), 6
    for group, bars in groups:
        middle = y + bar * len(bars) / 2 + 4
        body += Markup('<text class="name" x="{}" y="{}" text-anchor="end">{}</text>').format(
            left - 12, middle, shorten(group, 17)
        )
        for name, share, style in bars:
            length = round((share or 0) * (width - left - right), 1)
            text = "no rows" if share is None else f"{100 * share:.1f}"
            body += Markup(
                '<g class="{}"><rect class="bar" x="{}" y="{}" width="{}" height="{}" rx="2"/>'
                '<text class="tick" x="{}" y="{}">{}</text><title>{}: {}</title></g>'
            ).format(style, left, y, length, bar - 2, left + length + 6, y + bar - 2.5, text, name, text)
            y += bar
        y += gap
    return Chart(title, _svg(title, width, max(y - gap + 6, 20), body))


def waterfall(title: str, start: float, steps: Sequence[tuple[str, float]]) -> Chart:
    """How a share rises or falls step by step: `start`, then (what is added, share after it), then the last one."""
    left, right, row_height, width = 158, 52, 26, 540
    scale = (width - left - right) / max(start, *(share for _, share in steps), 0.01)
    rows = [("initial", 0.0, start, "base", f"{100 * start:.1f}")]
    before = start
    for name, share in steps:
        change = f"{100 * (share - before):+.1f}"
        rows.append((f"+ {name}", before, share, "loss" if share < before else "gain", change))
        before = share
    rows.append(("prompt", 0.0, before, "main", f"{100 * before:.1f}"))
    body = Markup("")
    for index, (name, first, last, style, text) in enumerate(rows):
        y, low, high = row_height * index + 6, min(first, last), max(first, last)
        body += Markup(
            '<g class="{style}"><text class="name" x="{x0}" y="{ty}" text-anchor="end">{name}</text>'
            '<rect class="bar" x="{x}" y="{y}" width="{length}" height="{height}" rx="2"/>'
            '<text class="tick" x="{end}" y="{ty}">{text}</text><title>{full}: {text}</title></g>'
        ).format(
            style=style,
            x0=left - 14,
            ty=y + 13,
            name=shorten(name, 23),
            x=round(left + low * scale, 1),
            y=y,
            length=round(max((high - low) * scale, 1.5), 1),
            height=row_height - 8,
            end=round(left + high * scale + 6, 1),
            text=text,
            full=name,
        )
    return Chart(title, _svg(title, width, row_height * len(rows) + 4, body))


def stacked_bar(title: str, parts: Sequence[tuple[str, float]]) -> Chart:
    """One bar divided by phase; the legend with numbers stands in the page."""
    width, height, x, body = 520, 22, 0.0, Markup("")
    total = sum(value for _, value in parts) or 1.0
    for index, (name, value) in enumerate(parts):
        length = width * value / total
        body += Markup(
            '<rect class="phase{}" x="{}" y="2" width="{}" height="18"><title>{}: {}</title></rect>'
        ).format(index % 6, round(x, 1), round(max(length - 1.5, 0.5), 1), name, f"{value:.1f} s")
        x += length
    return Chart(title, _svg(title, width, height, body))


def reliability_diagram(title: str, bins: Sequence[tuple[float, float, int]], style: str) -> Chart:
    """Accuracy over stated confidence: (confidence, accuracy, count). On the diagonal they are equal."""
    size, left, bottom, top = 220, 38, 30, 10
    plot = size - left - 10
    height = plot + bottom + top

    def place(x: float, y: float) -> tuple[float, float]:
        return round(left + x * plot, 1), round(top + (1 - y) * plot, 1)

    body = Markup("")
    for tick in (0.0, 0.5, 1.0):
        x, y = place(tick, tick)
        body += Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(left, left + plot, y, y)
        body += Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{:.0f}</text>').format(
            left - 6, y + 4, 100 * tick
        )
        body += Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{:.0f}</text>').format(
            x, height - 10, 100 * tick
        )
    (x1, y1), (x2, y2) = place(0, 0), place(1, 1)
    body += Markup('<line class="zero" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(x1, y1, x2, y2)
    largest = max((count for _, _, count in bins), default=1)
    for confidence, accuracy, count in bins:
        x, y = place(confidence, accuracy)
        body += Markup('<circle class="dot" cx="{}" cy="{}" r="{}"><title>{}</title></circle>').format(
            x,
            y,
            round(2.5 + 7 * math.sqrt(count / largest), 1),
            f"{count} answers: confidence {100 * confidence:.0f}, accuracy {100 * accuracy:.0f}",
        )
    return Chart(title, _svg(title, size, height, Markup('<g class="{}">{}</g>').format(style, body)))


def scatter(title: str, points: Sequence[tuple[float, float]]) -> Chart:
    """Dots at (x, y) on two axes of one scale. On the diagonal both are equal."""
    size, left, bottom, top = 260, 46, 30, 10
    plot = size - left - 10
    height = plot + bottom + top
    ticks = nice_ticks(*_span([value for point in points for value in point]))

    def place(x: float, y: float) -> tuple[float, float]:
        share_x, share_y = ((value - ticks[0]) / (ticks[-1] - ticks[0]) for value in (x, y))
        return round(left + share_x * plot, 1), round(top + (1 - share_y) * plot, 1)

    body = Markup("")
    for tick in ticks:
        x, y = place(tick, tick)
        body += Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(left, left + plot, y, y)
        body += Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>').format(
            left - 6, y + 4, f"{tick:g}"
        )
        body += Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            x, height - 10, f"{tick:g}"
        )
    (x1, y1), (x2, y2) = place(ticks[0], ticks[0]), place(ticks[-1], ticks[-1])
    body += Markup('<line class="zero" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(x1, y1, x2, y2)
    for point in points:
        x, y = place(*point)
        body += Markup('<circle class="dot" cx="{}" cy="{}" r="2.5"/>').format(x, y)
    return Chart(title, _svg(title, size, height, Markup('<g class="main">{}</g>').format(body)))


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten) that cover [low, high]."""
    rough = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step)) + 1)
    return [round(index * step, digits) + 0.0 for index in range(first, last + 1)]


def shorten(text: str, length: int) -> str:
    """`text` on one line, cut to `length` characters with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high - low < 1e-12:
        padding = abs(low) * 0.1 or 1.0
        return low - padding, high + padding
    return low, high


def _line(line: Series, place: Callable[[float, float], tuple[float, float]]) -> Markup:
    body = Markup("")
    if line.low is not None and line.high is not None:
        there = [place(x, y) for x, y in zip(line.xs, line.high, strict=True)]
        back = [place(x, y) for x, y in zip(line.xs, line.low, strict=True)][::-1]
        outline = " ".join(f"{x},{y}" for x, y in [*there, *back])
        body += Markup('<polygon class="band" points="{}"/>').format(outline)
    points = [place(x, y) for x, y in zip(line.xs, line.ys, strict=True) if y is not None]
    body += Markup('<polyline class="line" points="{}"/>').format(" ".join(f"{x},{y}" for x, y in points))
    if line.dots or (len(points) == 1 and not line.end):
        for x, y in points:
            body += Markup('<circle class="dot" cx="{}" cy="{}" r="3"/>').format(x, y)
    if line.end and points:
        x, y = points[-1]
        if line.end == "won":
            body += Markup('<circle class="dot" cx="{}" cy="{}" r="5"/>').format(x, y)
        else:
            body += Markup('<path class="line" d="M{} {}l6 6m0 -6l-6 6"/>').format(x - 3, y - 3)
    return Markup('<g class="{}">{}</g>').format(line.style, body)


def _svg(title: str, width: float, height: float, body: Markup, *, id: str = "") -> Markup:
    """One with an `id` answers the pointer and the arrow keys."""
    live = Markup(' id="{}" tabindex="0"').format(id) if id else Markup("")
    return Markup('<svg{} viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        live, width, height, title, body
    )
