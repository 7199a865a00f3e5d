import json
from dataclasses import replace

import pytest

from prewrite.choosing.evaluate import evaluate
from prewrite.choosing.evaluation import calibrated_note
from prewrite.errors import ConfigError
from prewrite.types import Answer, RewriteExample
from run_fixture import INITIAL, LABELS, REWRITE, NoisyAnswers, examples


class ByTable:
    """An evaluator with given scores."""

    def __init__(self, **scores):
        self.scores = list(scores.values())

    def answers(self, rewrites, rows):
        return [
            [Answer(f"{rewrite} {row.input}", "out", "out", score) for row, score in zip(rows, scores, strict=True)]
            for rewrite, scores in zip(rewrites, self.scores, strict=True)
        ]


def rows(count):
    return [RewriteExample("A", str(i), "gold") for i in range(count)]


def test_a_clear_gain_is_stated_with_rows_and_interval():
    found = evaluate(NoisyAnswers(), {"initial": INITIAL, "rewrite": REWRITE}, examples(300, "test"))
    difference = found.differences["rewrite"]
    assert difference.mean == pytest.approx(found.results["rewrite"].mean - found.results["initial"].mean)
    assert found.verdict().startswith(f"{100 * difference.mean:+.1f} points on 300 test rows, 95% interval +")


def test_a_small_difference_is_called_no_significant_gain():
    found = evaluate(ByTable(a=[0, 1] * 50, b=[1, 1] + [0, 1] * 49), {"initial": "A", "rewrite": "B"}, rows(100))
    assert found.verdict().startswith("No significant gain: +1.0 points on 100 test rows")


def test_a_loss_is_named_as_one():
    found = evaluate(ByTable(a=[1] * 60, b=[0] * 30 + [1] * 30), {"initial": "A", "rewrite": "B"}, rows(60))
    assert found.verdict().startswith("No significant gain but a loss: -50.0 points")


def test_keeping_the_initial_instruction_is_no_gain():
    found = evaluate(ByTable(a=[1, 0], b=[1, 0]), {"initial": "A", "rewrite": "A"}, rows(2))
    assert found.verdict() == "No significant gain: the initial instruction was kept."


# Of 100 rows the rewrite gains 12 and loses 3: +9.0 points, p = 0.035 by McNemar's exact test.
BEFORE = [0] * 12 + [1] * 3 + [1] * 85
AFTER = [1] * 12 + [0] * 3 + [1] * 85


def test_the_verdict_on_the_rewrite_is_the_same_with_and_without_baselines_beside_it():
    alone = evaluate(ByTable(a=BEFORE, b=AFTER), {"initial": "A", "rewrite": "B"}, rows(100), primary="rewrite")
    others = {"untrained greedy": "C", "best of samples before RL": "D", "exemplars": "E", "trained greedy": "F"}
    table = ByTable(a=BEFORE, b=AFTER, c=BEFORE, d=[1] * 10 + BEFORE[10:], e=BEFORE, f=AFTER)
    beside = evaluate(table, {"initial": "A", "rewrite": "B"} | others, rows(100), primary="rewrite")
    assert alone.verdict() == beside.verdict() == "+9.0 points on 100 test rows, 95% interval +2.0 to +17.0."
    assert beside.differences["rewrite"].p_value == pytest.approx(0.03515625)


def test_the_rewrite_is_compared_with_each_baseline_and_those_comparisons_are_corrected_together():
    table = ByTable(a=BEFORE, b=AFTER, c=[1] * 2 + BEFORE[2:], d=BEFORE)
    names = {"initial": "A", "rewrite": "B", "untrained": "C", "same as initial": "A"}
    found = evaluate(table, names, rows(100), primary="rewrite")
    assert set(found.gains_over) == {"untrained", "same as initial"}
    gain = found.gains_over["untrained"]
    assert (gain.mean, gain.gained, gain.lost) == (pytest.approx(0.07), 10, 3)
    # Three comparisons beside the primary one; a text against itself is none. By McNemar: untrained against initial
    # 2 to 0, p = 0.5; rewrite over untrained 10 to 3, p = 0.0923; rewrite over the second "A" 12 to 3, p = 0.0352.
    assert found.gains_over["same as initial"].p_value == pytest.approx(3 * 0.03515625)
    assert gain.p_value == pytest.approx(2 * 0.09228515625)
    assert found.differences["untrained"].p_value == pytest.approx(0.5)
    names = {"initial": "A", "rewrite": "B", "greedy": "B"}
    same = evaluate(ByTable(a=BEFORE, b=AFTER, c=AFTER), names, rows(100), primary="rewrite")
    assert same.gains_over == {}  # a text gains nothing over itself
    told = found.to_json()
    assert told["primary"] == "rewrite" and told["gains_over"]["untrained"]["significant"] is False


def test_without_a_primary_instruction_all_comparisons_are_corrected_together():
    base = [0] * 40 + [1] * 60
    names = {"initial": "A", "one": "B", "two": "C"}
    alone = evaluate(ByTable(a=base, b=[1] * 8 + base[8:]), {"initial": "A", "one": "B"}, rows(100))
    both = evaluate(ByTable(a=base, b=[1] * 8 + base[8:], c=base), names, rows(100))
    assert alone.differences["one"].p_value == pytest.approx(2 * 0.5**8)
    assert both.differences["one"].p_value == pytest.approx(2 * 2 * 0.5**8)


def test_labels_are_counted_by_gold_and_by_prediction():
    found = evaluate(NoisyAnswers(), {"initial": INITIAL}, examples(200, "test"))
    labels = found.results["initial"].labels
    assert [label.label for label in labels] == list(LABELS)
    assert [label.n for label in labels] == [50] * 4
    assert sum(label.predicted for label in labels) == 200
    assert sum(label.accuracy for label in labels) / 4 == pytest.approx(found.results["initial"].mean)


def test_reliability_is_there_only_where_labels_were_scored():
    assert evaluate(NoisyAnswers(), {"initial": INITIAL}, examples(40, "x")).results["initial"].reliability is not None
    assert evaluate(ByTable(a=[1, 0]), {"initial": "A"}, rows(2)).results["initial"].reliability is None


class Biased:
    """Says "yes" to everything under "Say.", and what is right, but for one row, under "Judge."; no bias beneath."""

    def answers(self, rewrites, examples):
        def answer(rewrite, row):
            lead = 1.0 if row.output == "yes" else -1.0
            yes, no = (-0.1 + lead / 10, -3.0) if rewrite == "Say." else (-1.0 + lead, -1.0)
            if rewrite == "Judge." and row.input == "0":
                yes, no = -1.0, -3.0
            label = "yes" if yes > no else "no"
            return Answer("p", label, label, float(label == row.output), (yes, no))

        return [[answer(rewrite, row) for row in examples] for rewrite in rewrites]


def labelled(count):
    return [
        RewriteExample("Say.", str(n), "yes" if n % 2 else "no", "classification", choices=("yes", "no"))
        for n in range(count)
    ]


def test_what_remains_of_a_gain_after_batch_calibration():
    found = evaluate(Biased(), {"initial": "Say.", "rewrite": "Judge."}, labelled(40))
    assert found.differences["rewrite"].mean == pytest.approx(0.475)  # 20 of 40 right before, 39 after
    assert found.results["initial"].calibrated.mean() == 1.0
    assert found.calibrated["rewrite"].mean == pytest.approx(-0.025)
    note = calibrated_note(found.to_json(), "rewrite")
    assert "After batch calibration of the labels, which needs no rewrite: 1.000 under the initial " in note
    assert "instruction, 0.975 under this one" in note
    in_points = calibrated_note(found.to_json(), "rewrite", in_points=True)
    assert "100.0 under the initial instruction, 97.5 under this one; -2.5 points" in in_points
    assert "-2.5 points, 95% interval" in note
    kept = evaluate(Biased(), {"initial": "Say.", "rewrite": "Say."}, labelled(4))
    assert calibrated_note(kept.to_json(), "rewrite") is None  # nothing was rewritten
    mixed = [*labelled(4), replace(labelled(1)[0], choices=("no", "yes"))]
    assert evaluate(Biased(), {"initial": "Say."}, mixed).results["initial"].calibrated is None
    assert evaluate(ByTable(a=[1, 0]), {"initial": "A"}, rows(2)).results["initial"].calibrated is None


def test_json_and_items_hold_plain_types():
    found = evaluate(NoisyAnswers(), {"initial": INITIAL, "rewrite": REWRITE}, examples(20, "test"))
    text = json.dumps([found.to_json(), found.items()], allow_nan=False)
    summary, items = json.loads(text)
    assert summary["instructions"]["rewrite"]["instruction"] == REWRITE
    assert items[3]["gold"] == ["technical"] and items[3]["answers"]["rewrite"]["score"] in (0.0, 1.0)


def test_a_missing_baseline_or_no_rows_is_refused():
    with pytest.raises(ConfigError, match="'initial' is not among"):
        evaluate(ByTable(a=[1]), {"rewrite": "A"}, rows(1))
    with pytest.raises(ConfigError, match="primary instruction 'rewrite' is not among the instructions: initial"):
        evaluate(ByTable(a=[1]), {"initial": "A"}, rows(1), primary="rewrite")
    with pytest.raises(ConfigError, match="no test rows"):
        evaluate(ByTable(a=[]), {"initial": "A"}, [])
