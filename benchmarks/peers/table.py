"""Cells as Markdown: what each arm scored and spent, and what ours gains over each, with intervals."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from benchmarks.peers.arms import ARMS, MAIN, NOT_RUN
from numpy.typing import NDArray

from prewrite.choosing.evaluation import points
from prewrite.choosing.stats import holm, mean_interval

Floats = NDArray[np.float64]
Cell = dict[str, Any]
FRAME_NAMES = {"bare": "Bare text", "chat": "Chat template"}
DRAWS = 10_000
"""Of the bootstrap."""


class Difference(NamedTuple):
    """Ours minus another arm, in shares of right answers, over the data sets and seeds that both have run."""

    mean: float
    low: float
    high: float
    """A 95% interval of the bootstrap over data sets, seeds and rows."""
    p_value: float
    sets: int
    cells: int


def read(path: Path) -> list[Cell]:
    """The finished cells."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def key_of(cell: Cell) -> tuple[str, str, int, int, str]:
    """What names a cell."""
    return cell["frame"], cell["data"], cell["seed"], cell["budget"], cell["arm"]


def difference(pairs: dict[str, list[Floats]], *, draws: int = DRAWS, seed: int = 0) -> Difference:
    """The mean over sets, seeds and rows, and its bootstrap. `pairs`: by data set, for each seed ours minus theirs.

    Each draw takes sets, then seeds within a set, then rows; the rows of a set are the same for all its seeds, so they
    are drawn once for all of them. The p-value is two-sided: how often a draw lies on the other side of 0.
    """
    rng, sets = np.random.default_rng(seed), [np.stack(found) for found in pairs.values()]
    of_sets = np.empty((len(sets), draws))
    for at, found in enumerate(sets):
        seeds, rows = found.shape
        weights = rng.multinomial(seeds, [1 / seeds] * seeds, size=draws) / seeds
        shares = rng.multinomial(rows, [1 / rows] * rows, size=draws) / rows
        of_sets[at] = np.einsum("ds,sr,dr->d", weights, found, shares)
    taken = rng.multinomial(len(sets), [1 / len(sets)] * len(sets), size=draws) / len(sets)
    means = (taken * of_sets.T).sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    side = min((means <= 0).mean(), (means >= 0).mean())
    mean = float(np.mean([found.mean() for found in sets]))
    cells = sum(len(found) for found in sets)
    return Difference(mean, float(low), float(high), min(1.0, 2 * float(side) + 1 / draws), len(sets), cells)


def pairs_of(cells: Iterable[Cell], one: str, other: str) -> dict[str, list[Floats]]:
    """For each data set, `one` minus `other` on its test rows, for each seed that both have run."""
    scores = {(cell["data"], cell["seed"], cell["arm"]): np.array(cell["scores"]) for cell in cells}
    found: dict[str, list[Floats]] = {}
    for (data, seed, arm), of_one in sorted(scores.items()):
        if arm == one and (data, seed, other) in scores:
            found.setdefault(data, []).append(of_one - scores[data, seed, other])
    return found


def write(cells: Sequence[Cell]) -> str:
    """All tables, one group for each frame and budget."""
    parts = []
    for frame, budget in sorted({(cell["frame"], cell["budget"]) for cell in cells}):
        here = [cell for cell in cells if (cell["frame"], cell["budget"]) == (frame, budget)]
        arms = [arm for arm in ARMS if any(cell["arm"] == arm for cell in here)]
        parts += [
            f"### {FRAME_NAMES[frame]}, {budget:,} task calls",
            accuracies(here, arms),
            differences(here, arms),
            costs(here, arms),
        ]
        parts += [crashes(here)] if any(cell["crash"] for cell in here) else []
    parts += ["\n".join(f"- {name} was not run: {why}." for name, why in NOT_RUN.items())]
    return "\n\n".join(parts)


def accuracies(cells: Sequence[Cell], arms: Sequence[str]) -> str:
    """Each arm's test accuracy by data set, the mean of its seeds; and over the sets."""
    sets = list(dict.fromkeys(cell["data"] for cell in cells))
    seeds = {name: len({cell["seed"] for cell in cells if cell["data"] == name}) for name in sets}
    rows = {name: len(next(cell for cell in cells if cell["data"] == name)["scores"]) for name in sets}
    lines = ["| arm | " + " | ".join(sets) + " | mean |", "| --- |" + " --- |" * len(sets) + " ---: |"]
    for arm in arms:
        shown, means = [], []
        for name in sets:
            found = [cell["scores"] for cell in cells if (cell["arm"], cell["data"]) == (arm, name)]
            if not found:
                shown.append("")
                continue
            scores = np.mean(found, axis=0)
            around = mean_interval(scores)
            means.append(float(scores.mean()))
            missing = "" if len(found) == seeds[name] else f", {len(found)} seeds"
            shown.append(f"{scores.mean():.3f} ({around.low:.2f} to {around.high:.2f}{missing})")
        mean = f"{np.mean(means):.3f}" if len(means) == len(sets) else ""
        lines.append(f"| {ARMS[arm].name} | {' | '.join(shown)} | {mean} |")
    told = ", ".join(f"{name} {seeds[name]} x {rows[name]}" for name in sets)
    return "\n".join(lines) + f"\n\nSeeds x test rows: {told}. Intervals are 95%, over the test rows."


def differences(cells: Sequence[Cell], arms: Sequence[str]) -> str:
    """What ours gains over every other arm that reads text, worst first; p-values corrected for their number."""
    text = [arm for arm in arms if not ARMS[arm].likelihood and arm != MAIN]
    found = {arm: difference(pairs) for arm in text if (pairs := pairs_of(cells, MAIN, arm))}
    if not found:
        return f"No arm has a cell together with {ARMS[MAIN].name}."
    corrected = dict(zip(found, holm([one.p_value for one in found.values()]), strict=True))
    lines = [f"| {ARMS[MAIN].name}, less | points (95% interval) | p, Holm | data sets | cells | sets won, lost |"]
    lines += ["| --- | --- | ---: | ---: | ---: | --- |"]
    for arm, one in sorted(found.items(), key=lambda item: item[1].mean):
        means = [np.mean([row.mean() for row in rows]) for rows in pairs_of(cells, MAIN, arm).values()]
        won, lost = sum(mean > 0 for mean in means), sum(mean < 0 for mean in means)
        gain = f"{points(one.mean)} ({points(one.low)} to {points(one.high)})"
        lines.append(
            f"| {ARMS[arm].name} | {gain} | {corrected[arm]:.3f} | {one.sets} | {one.cells} | {won}, {lost} |"
        )
    return "\n".join(lines)


def costs(cells: Sequence[Cell], arms: Sequence[str]) -> str:
    """What a search of each arm asked and took, as means over its cells."""
    lines = [
        "| arm | task calls, mean (most) | task tokens | proposer calls | proposer tokens | wall time, s | "
        "environment, MB | kept the start | crashed | own start |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for arm in arms:
        mine = [cell for cell in cells if cell["arm"] == arm]
        calls = [cell["calls"] for cell in mine]
        size = next((cell["megabytes"] for cell in mine if cell.get("megabytes")), None)
        asked = [_asked(mine, role, what) for role in ("task", "proposer") for what in ("tokens", "calls")]
        shown = [
            f"{np.mean(calls):,.0f} ({max(calls):,})",
            asked[0],
            asked[3],
            asked[2],
            f"{np.mean([cell['seconds'] for cell in mine]):,.0f}",
            f"{size:,}" if size else "",
            f"{sum(not cell['changed'] for cell in mine)} of {len(mine)}",
            str(sum(bool(cell["crash"]) for cell in mine)),
            f"{np.mean([np.mean(cell['start_scores']) for cell in mine]):.3f}",
        ]
        lines.append(f"| {ARMS[arm].name} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _asked(cells: Sequence[Cell], role: str, what: str) -> str:
    """Mean calls or tokens of a role; empty for searches that did not go through the endpoint."""
    told = [cell["asked"][role] for cell in cells if "prompt_tokens" in cell["asked"].get(role, {})]
    if not told:
        return ""
    of = [one["calls"] if what == "calls" else one["prompt_tokens"] + one["completion_tokens"] for one in told]
    return f"{np.mean(of):,.0f}"


def crashes(cells: Sequence[Cell]) -> str:
    """How searches ended that did not end by themselves."""
    lines = ["| arm | data | seed | ended with |", "| --- | --- | ---: | --- |"]
    for cell in cells:
        if cell["crash"]:
            words = "".join(char if char.isprintable() else " " for char in cell["crash"][:200])
            shown = words.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
            lines.append(f"| {ARMS[cell['arm']].name} | {cell['data']} | {cell['seed']} | {shown} |")
    return "\n".join(lines)
