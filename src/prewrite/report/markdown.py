"""The same result as Markdown, for terminals and pull requests."""

from __future__ import annotations

import re
from typing import Any

from prewrite.report.formats import duration, percent, pvalue, signed


def render_markdown(page: dict[str, Any]) -> str:
    """`report.md` from the values of `build_page`."""
    lines = [f"# {cell(page['name'])}", f"**{cell(page['verdict'])}**"]
    if page["tasks"]:
        rows = [
            [
                cell(row["instruction"]),
                cell(row["text"]),
                percent(row["initial"]),
                percent(row["rewrite"]),
                _gain(row["gain"]),
            ]
            for row in page["tasks"]
        ]
        lines.append(table(["instruction", "rewrite", "initial", "rewritten", "gain, 95% interval"], rows))
    for view in page["views"]:
        lines += _view(view, titled=len(page["views"]) > 1)
    if page["evals"]:
        rows = [
            [
                cell(row["task_model"] + ("" if row["offsets"] else ", without its label offsets")),
                cell(f"{row['n']:,} {row['split']} rows of {row['data']}"),
                percent(row["initial"]),
                percent(row["prompt"]),
                _gain({"mean": row["gain"], "low": row["low"], "high": row["high"]}),
            ]
            for row in page["evals"]
        ]
        lines.append(table(["the prompt with", "on", "initial", "prompt", "gain, 95% interval"], rows))
    if page["race"] and page["race"]["selected"]:
        selected = page["race"]["selected"]
        lines.append(
            f"Race: {len(page['race']['rows'])} candidates, {selected['calls']:,} of {selected['full_calls']:,} "
            f"scorings that a full evaluation takes; it ended because {selected['stopped']}."
        )
    if page["guards"]:
        fired = ", ".join(f"{cell(guard.name)} {guard.count:,}×" for guard in page["guards"])  # noqa: RUF001
        lines.append(f"Guards that fired in {page['rollouts']:,} rollouts: {fired}.")
    if found := page["estimates"]:
        lines.append(
            f"Reward model: it alone graded {found['alone']:.0%} of {found['rollouts']:,} rollouts"
            + (
                f"; mean difference to the task model's grade {found['error']:.3f}"
                if found["error"] is not None
                else ""
            )
            + (f", rank correlation within an update {found['rank']:.2f}" if found["rank"] is not None else "")
            + "."
        )
    facts = [*page["facts"], *((f"time: {name}", duration(seconds)) for name, seconds in page["cost"]["phases"])]
    if facts:
        lines.append(table(["", ""], [[cell(name), cell(value)] for name, value in facts]))
    lines += [cell(note) for note in page["notes"]]
    if page["setup"]["command"]:
        lines += ["To repeat it:", fenced(page["setup"]["command"], "sh")]
    lines += [f"Resumed {started}: {cell(changes)}." for started, changes in page["setup"]["resumed"]]
    return "\n\n".join(lines) + "\n"


def _view(view: dict[str, Any], *, titled: bool) -> list[str]:
    """What is said of one instruction."""
    lines = [f"## {cell(view['instruction'])}", cell(view["verdict"])] if titled else []
    whole = view["thing"] == "prompt"
    lines += [f"Initial {'prompt' if whole else 'instruction'}:", fenced(view["initial"])]
    lines += [f"{view['thing'].capitalize()}:", fenced(view["rewrite"] or "(none yet)")]
    if view["offsets"]:
        offsets = ", ".join(f"{cell(label)} {nats:+.2f}" for label, nats in view["offsets"])
        lines.append(f"Label offsets in nats, taken off before the highest label is chosen: {offsets}.")
    if view["scores"]:
        lines += _scores(view["scores"], whole)
    if view["dev"]:
        lines.append(_dev(view["dev"], view["scores"], view["thing"]))
    if found := view["search"]:
        lines.append(
            f"Search: {found['candidates']:,} prompts competed for {found['calls']:,} task-model calls; the last ones "
            f"were compared on {found['rows']} dev rows."
            + ("" if found["reworded"] or not found["wordings"] else " Your wording was kept.")
        )
    return lines


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column to the left, numbers to the right."""
    marks = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, marks, *rows])


def cell(text: str) -> str:
    """Text of a model on one line, its marks and tags shown as they are."""
    return re.sub(r"([\\`*_{}\[\]<>|#~!])", r"\\\1", " ".join(text.split()))


def fenced(text: str, language: str = "text") -> str:
    """A code block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _scores(scores: dict[str, Any], whole: bool) -> list[str]:
    rows, compared = [], any(row["gain_over"] for row in scores["rows"])
    for row in scores["rows"]:
        cells = [cell(row["name"]), percent(row["mean"]), f"{percent(row['low'])} to {percent(row['high'])}"]
        if found := row["difference"]:
            interval = f"{signed(found['low'])} to {signed(found['high'])}"
            counts = f"{found['gained']} / {found['lost']}"
            cells += [signed(found["mean"]), interval, counts, pvalue(found["p_value"])]
        else:
            cells += ["", "", "", ""]
        if compared:
            over = row["gain_over"]
            same = "same text" if row["style"] == "other" else ""
            cells.append(f"{_gain(over)}, p {pvalue(over['p_value'])}" if over else same)
        rows.append(cells)
    head = [
        "prompt" if whole else "instruction",
        "score",
        f"{scores['level']} interval",
        "difference",
        "interval",
        "gained / lost",
        "p",
    ]
    head += [f"{cell(scores['main']['name'])} over it"] if compared else []
    below = f"Points on {scores['n']:,} {scores['split']} rows; differences are paired by row."
    if compared:
        pair = f"{cell(scores['main']['name'])} against {cell(scores['baseline']['name'])}"
        below += f" The p of {pair} stands as it is; the others are Holm-corrected together."
    return [table(head, rows), below, *([cell(scores["calibrated"])] if scores["calibrated"] and not whole else [])]


def _gain(found: dict[str, Any]) -> str:
    return f"{signed(found['mean'])} ({signed(found['low'])} to {signed(found['high'])})"


def _dev(dev: dict[str, Any], scores: dict[str, Any] | None, thing: str) -> str:
    chosen = f"The {thing} was chosen by its dev score, {percent(dev['rewrite'])}. "
    if dev["test"] is not None and scores:
        holds = "; this one does not" if dev["test"] >= dev["rewrite"] else ""
        return (
            f"{chosen}Such a score flatters as a rule{holds}: on {scores['split']} rows it is {percent(dev['test'])}."
        )
    corrected = dev["corrected"]
    return chosen + (
        "Such a score flatters; corrected for that by nested resampling, in place of a test result, it is "
        f"{percent(corrected['score'])} ({percent(corrected['low'])} to {percent(corrected['high'])})."
    )
