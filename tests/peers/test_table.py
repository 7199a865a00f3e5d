"""The table shows every arm, losses as well as gains, and what the figures say about chance."""

from pathlib import Path

import numpy as np
import pytest
from benchmarks.peers import plot, table


def cell(arm, scores, *, data="a", seed=0, **more):
    told = {"calls": 90, "prompt_tokens": 900, "completion_tokens": 100, "refused": 0}
    return {
        "frame": "chat",
        "data": data,
        "seed": seed,
        "budget": 100,
        "arm": arm,
        "scores": scores,
        "start_scores": [0.0] * len(scores),
        "calls": 90,
        "asked": {"task": told, "proposer": told | {"calls": 3}},
        "seconds": 7,
        "changed": True,
        "notes": {},
        "crash": "",
        "megabytes": None,
    } | more


def test_a_loss_stands_first_and_a_gain_with_its_interval():
    rng = np.random.default_rng(0)
    ours = {name: rng.integers(0, 2, 200) for name in "ab"}
    cells = [cell("search-worded", rows.tolist(), data=name) for name, rows in ours.items()]
    cells += [cell("gepa", (rows * 0).tolist(), data=name) for name, rows in ours.items()]
    cells += [cell("capo", np.ones(200).tolist(), data=name) for name in ours]
    cells += [cell("mipro", rows.tolist(), data=name) for name, rows in ours.items()]
    lines = table.differences(cells, ["search-worded", "mipro", "gepa", "capo"]).splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == [
        "| promptolution CAPO", "| DSPy MIPROv2 without demos", "| gepa"
    ]  # fmt: skip
    assert lines[0].endswith("| 2 | 2 | 0, 2 |") and lines[2].endswith("| 2 | 2 | 2, 0 |")
    assert "| 0.0 (0.0 to 0.0) | 1.000 |" in lines[1]
    share = 100 * np.mean([rows.mean() for rows in ours.values()])
    assert f"+{share:.1f} (+" in lines[2]


def test_the_interval_holds_the_spread_of_sets_and_not_of_rows_alone():
    alike = {name: [np.tile([1.0, 0.0], 100)] for name in "abcd"}
    unlike = {name: [np.full(200, value)] for name, value in zip("abcd", (1.0, 1.0, 0.0, 0.0), strict=True)}
    narrow, wide = table.difference(alike), table.difference(unlike)
    assert narrow.mean == wide.mean == 0.5
    assert narrow.high - narrow.low < 0.15 < 0.7 < wide.high - wide.low
    assert narrow.p_value < 0.001 < wide.p_value


def test_rows_of_a_set_are_drawn_once_for_all_its_seeds():
    rows = np.tile([1.0, 0.0], 50)
    one, five = table.difference({"a": [rows]}), table.difference({"a": [rows] * 5})
    assert five.high - five.low == pytest.approx(one.high - one.low, abs=0.02)


def test_frames_and_budgets_stand_apart():
    cells = [
        cell("initial", [0.0], frame=frame, budget=budget) for frame in ("chat", "bare") for budget in (1000, 400)
    ]
    titles = [line for line in table.write(cells).splitlines() if line.startswith("###")]
    assert titles == [
        f"### {frame}, {calls} task calls" for frame in ("Bare text", "Chat template") for calls in ("400", "1,000")
    ]
    assert len({table.key_of(one) for one in cells}) == 4
    assert plot.draw(cells, "bare").count("<circle") == 2


def test_only_cells_that_both_arms_have_are_compared():
    cells = [cell("search-worded", [1.0], seed=seed) for seed in (0, 1)] + [cell("gepa", [0.0], seed=1)]
    assert table.pairs_of(cells, "search-worded", "gepa")["a"][0].tolist() == [1.0]
    assert len(table.pairs_of(cells, "search-worded", "gepa")["a"]) == 1


def test_a_crash_is_told_in_its_words_without_breaking_the_table():
    text = table.write([cell("opro", [0.0, 1.0], crash="Error: a|b\n<x>", changed=False), cell("initial", [1.0, 1.0])])
    assert "| promptolution OPRO | a | 0 | Error: a\\|b &lt;x> |" in text
    assert "| promptolution OPRO | 90 (90) | 1,000 | 3 | 1,000 | 7 |  | 1 of 1 | 1 | 0.000 |" in text
    assert "aisteer360" in text and "not on the package index" in text


def test_an_arm_that_lacks_a_data_set_has_no_mean():
    cells = [cell("initial", [1.0, 0.0], data=name) for name in "ab"] + [cell("gepa", [1.0, 1.0])]
    lines = {line.split(" | ")[0]: line for line in table.accuracies(cells, ["initial", "gepa"]).splitlines()}
    assert lines["| initial prompt"].endswith("| 0.500 |") and lines["| gepa"].endswith("|  |  |")


def test_the_picture_has_a_dot_for_each_arm_that_reads_text():
    cells = [cell("initial", [1.0, 0.0]), cell("gepa", [1.0, 1.0]), cell("search-likelihood", [1.0, 1.0])]
    drawn = plot.draw(cells, "chat")
    assert drawn.count("<circle") == 2 and "1. gepa, 1.000" in drawn and "likelihood" not in drawn


def test_a_dot_of_the_picture_counts_only_what_every_arm_has_run():
    cells = [cell("initial", [0.0], data=name) for name in "ab"]
    cells += [cell("gepa", [1.0], data="a"), cell("initial", [1.0], frame="bare")]
    assert "1. gepa, 1.000" in (drawn := plot.draw(cells, "chat")) and "2. initial prompt, 0.000" in drawn
    cells[0]["scores"] = [0.5]  # of the set that both have
    assert "2. initial prompt, 0.500" in plot.draw(cells, "chat")


def test_the_page_shows_what_the_raw_rows_say():
    root = Path(__file__).resolve().parents[2]
    written = table.write(table.read(root / "benchmarks" / "peers" / "results.jsonl"))
    assert "| prewrite |" in written
    assert written in (root / "docs" / "benchmark.md").read_text(encoding="utf-8")
