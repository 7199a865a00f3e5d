"""What is read from a task model's free text, and how it is graded: the cases of tests/cases, and more."""

from __future__ import annotations

import doctest
import importlib
import json
import random
from pathlib import Path

import pytest

from data_sets import small_and_public_data
from prewrite.data import load_splits
from prewrite.scoring.answers import parse_answer
from prewrite.scoring.metrics import exact_match, get_metric, metric_for, numeric_match, token_f1
from prewrite.types import RewriteExample

CASES = Path(__file__).resolve().parents[1] / "cases"


def cases(name: str) -> list:
    rows = map(json.loads, (CASES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
    return [pytest.param(row, id=f"{number}: {row['why']}") for number, row in enumerate(rows, start=1)]


@pytest.mark.parametrize("case", cases("labels"))
def test_a_label_is_read_from_free_text(case):
    choices = tuple(case["choices"])
    example = RewriteExample("Classify.", "x", choices[0], task="classification", choices=choices)
    assert parse_answer(case["output"], example) == case["label"]


@pytest.mark.parametrize("case", cases("numbers"))
def test_a_number_is_read_from_free_text_and_compared_by_value(case):
    prediction = parse_answer(case["output"], RewriteExample("Solve.", "x", case["gold"], task="math"))
    assert numeric_match(prediction, [case["gold"]]) == case["score"], prediction


@pytest.mark.parametrize("case", cases("short_answers"))
def test_a_short_answer_is_read_from_free_text_and_compared_after_normalisation(case):
    prediction = parse_answer(case["output"], RewriteExample("Answer.", "x", case["gold"], task="qa"))
    assert prediction == case["read"]
    assert exact_match(prediction, [case["gold"]]) == case["exact_match"]
    assert token_f1(prediction, [case["gold"]]) == pytest.approx(case["token_f1"])


def test_no_case_stands_twice_and_there_are_enough():
    counts = {}
    for name in ("labels", "numbers", "short_answers"):
        rows = [json.loads(line) for line in (CASES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        asked = {(row["output"], row.get("gold"), tuple(row.get("choices", ()))) for row in rows}
        assert len(asked) == len(rows), name
        counts[name] = len(rows)
    assert counts["labels"] >= 80 and counts["numbers"] >= 120 and counts["short_answers"] >= 40


@pytest.mark.parametrize("module", ["answers", "cues", "labels", "metrics", "numbers"])
def test_the_examples_in_docstrings_hold(module):
    results = doctest.testmod(importlib.import_module(f"prewrite.scoring.{module}"))
    assert results.attempted > 0 and results.failed == 0


FORMS = ["{}", "{}\n\nInput: and so on", "**Answer:** {}", "Answer:\n{}", "The answer is {}.", '{{"answer": "{}"}}']


@small_and_public_data
def test_the_gold_answer_scores_one_on_every_row_of_every_data_set(data):
    for folder in sorted(folder for folder in data.iterdir() if folder.is_dir()):
        for split in load_splits(folder):
            for example in split:
                metric = get_metric(metric_for(example.task))
                for gold in example.targets:
                    assert metric(gold, example.targets) == 1.0, (folder.name, example)
                    assert exact_match(gold, example.targets) == 1.0, (folder.name, example)
                    assert metric(parse_answer(gold, example), example.targets) == 1.0, (folder.name, example)


@small_and_public_data
@pytest.mark.parametrize("form", FORMS)
def test_a_gold_label_or_number_scores_one_in_whatever_form_it_is_given(data, form):
    for folder in sorted(folder for folder in data.iterdir() if folder.is_dir()):
        for example in load_splits(folder).dev:
            if example.task in ("classification", "math"):
                metric = get_metric(metric_for(example.task))
                prediction = parse_answer(form.format(example.targets[0]), example)
                assert metric(prediction, example.targets) == 1.0, (folder.name, example, prediction)


def test_a_row_of_math_without_any_number_keeps_its_words():
    example = RewriteExample("Solve.", "x", "no solution", task="math")
    assert parse_answer("I do not know", example) == "I do not know"
    assert exact_match(parse_answer("Answer: no solution", example), example.targets) == 1.0


PIECES = [
    *(
        "1",
        "23",
        "456",
        "1/2",
        "9" * 400,
        "e",
        "E5",
        "10",
        ",",
        ".",
        "-",
        "\u2013",
        "/",
        "^",
        "%",
        "$",
        "k",
        "x",
        " million",
    ),
    *(
        "{",
        "}",
        "(",
        ")",
        " ",
        "\u00a0",
        "\n",
        "#### ",
        "**",
        ":",
        '"',
        "'",
        "\ud800",
        "\u00bd",
        "\u207b\u00b3",
        "\u221a",
    ),
    *("\\frac{", "\\sqrt{", "\\boxed{", '"label": ', "The answer is ", "Answer:", "Step 2"),
    *("positive", "not ", "no ", "A ", "or ", "\u6b63\u9762"),
]


def test_no_text_is_too_odd_to_be_read():
    rng = random.Random(0)
    labelled = RewriteExample("I", "x", "1", task="classification", choices=("1", "2", "5", "A", "no", "\u6b63\u9762"))
    for _ in range(3000):
        text = "".join(rng.choices(PIECES, k=rng.randint(0, 14)))
        assert parse_answer(text, labelled) in ("", *labelled.choices)
        assert (
            0.0 <= numeric_match(parse_answer(text, RewriteExample("I", "x", "1", task="math")), ["1", "1/2"]) <= 1.0
        )
        assert 0.0 <= token_f1(parse_answer(text, RewriteExample("I", "x", "a", task="qa")), ["a"]) <= 1.0
