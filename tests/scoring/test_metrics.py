import pytest

from prewrite.errors import ConfigError
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.metrics import (
    METRICS,
    bleu,
    exact_match,
    get_metric,
    label_match,
    metric_for,
    numeric_match,
    token_f1,
)
from prewrite.task_models.scripted import ScriptedTaskModel
from prewrite.types import RewriteExample


@pytest.mark.parametrize(
    ("prediction", "target", "score"),
    [
        ("the Eiffel  Tower!", "Eiffel Tower", 1.0),
        ("a", "a", 1.0),
        ("A.", "a", 1.0),
        ("the", "a", 0.0),
        ("?!", "?!", 1.0),
        ("+", "-", 0.0),
        ("", "", 1.0),
        ("", "Paris", 0.0),
        ("café", "cafe\u0301", 1.0),
    ],
)
def test_exact_match_ignores_case_punctuation_and_articles_unless_nothing_else_is_left(prediction, target, score):
    assert exact_match(prediction, [target]) == score


def test_exact_match_takes_the_best_target():
    assert exact_match("Monet", ["Manet", "Monet"]) == 1.0


def test_token_f1_is_over_bags_so_repetition_does_not_pay():
    assert token_f1("no " * 8, ["no"]) == pytest.approx(2 * 1 / (8 + 1))  # 0.22; over sets it would be 1.0
    assert token_f1("Paris Paris Paris Paris", ["Paris"]) == pytest.approx(2 * 1 / (4 + 1))
    assert token_f1("the", ["a"]) == 0.0


def test_token_f1_takes_the_best_target():
    # "big red dog" against "red dog": 2 common, 2 * 2 / (3 + 2); against "cat": 0
    assert token_f1("the big red dog", ["cat", "a red dog"]) == pytest.approx(0.8)
    assert token_f1("", ["x"]) == 0.0


@pytest.mark.parametrize(
    ("prediction", "target"),
    [
        ("1,080", "1080"),
        ("1080.0", "1080"),
        ("$1,080", "1080"),
        ("The total is $1,080.00.", "1,080"),
        ("3/4", "0.75"),
        (r"\frac{3}{4}", "0.75"),
        ("first 3 then -5", "-5"),
        ("\u22125", "-5"),
        ("-$5", "-5"),
        ("10-5", "5"),
        ("50%", "50"),
        ("1e3", "1000"),
        (".5", "0.5"),
        ("5km", "5"),
        (r"\$1{,}080", "1080"),
        ("1,234,567", "1234567"),
        ("12, 13", "13"),
    ],
)
def test_numbers_that_are_equal_match(prediction, target):
    assert numeric_match(prediction, [target]) == 1.0


@pytest.mark.parametrize(
    ("prediction", "target"),
    [("15", "5"), ("50%", "0.5"), ("5", "-5"), ("", "0"), ("five", "5"), ("1080 or 7", "1080"), ("1.05", "105")],
)
def test_numbers_that_differ_do_not_match(prediction, target):
    assert numeric_match(prediction, [target]) == 0.0


def test_a_run_of_ten_thousand_digits_is_an_answer_like_any_other():
    assert numeric_match("9" * 10_000, ["9"]) == 0.0
    assert numeric_match("1e999", ["9"]) == 0.0


def test_label_match_ignores_case_and_wrapping_but_not_inner_punctuation():
    assert label_match(' "Positive". ', ["positive"]) == 1.0
    assert label_match("2  - Possibly", ["2 - possibly"]) == 1.0
    assert label_match("c", ["c++"]) == 0.0
    assert label_match("-", ["+"]) == 0.0
    assert label_match("positive review", ["positive"]) == 0.0


def test_bleu_is_scaled_to_one_and_below_one_for_a_near_miss():
    assert bleu("the lawyers were stopped by the authors.", ["the lawyers were stopped by the authors."]) == 1.0
    assert 0.3 < bleu("the lawyers were halted by the authors.", ["the lawyers were stopped by the authors."]) < 1.0
    assert bleu("", ["a b"]) == 0.0


def test_an_unknown_metric_is_refused_with_the_known_names():
    with pytest.raises(ConfigError, match=r"'f1' is unknown; choose one of exact_match, token_f1"):
        get_metric("f1")
    assert get_metric("token_f1") is token_f1


OWN_METRIC = """
import json

def same_name(prediction, targets):
    try:
        return json.loads(prediction)["name"] in targets
    except ValueError:
        return 0

def percent(prediction, targets):
    return 50
"""


def test_a_users_own_function_grades_the_whole_answer(tmp_path, monkeypatch):
    (tmp_path / "own_scoring.py").write_text(OWN_METRIC)
    rows = [RewriteExample("Give JSON.", "x", "Ada", task="qa"), RewriteExample("Give JSON.", "y", "Bob", task="qa")]
    task_model = ScriptedTaskModel(lambda prompt: '\n{\n"name": "Ada"}\n')
    path = f"{tmp_path / 'own_scoring.py'}:same_name"
    assert Evaluator(task_model, metric=path).score(["Answer in JSON."], rows).tolist() == [[1.0, 0.0]]
    assert get_metric(path)("not JSON", ["Ada"]) == 0.0
    monkeypatch.syspath_prepend(tmp_path)
    assert get_metric("own_scoring:same_name")('{"name": "Bob"}', ["Bob"]) == 1.0


def test_an_own_metric_that_cannot_be_used_says_why(tmp_path):
    file = tmp_path / "own_scoring.py"
    file.write_text(OWN_METRIC)
    with pytest.raises(ConfigError, match=r"returned 50 for the prediction 'x'; it must return a number from 0 to 1"):
        get_metric(f"{file}:percent")("x", ["x"])
    for name, line, signature in (("one", 1, "(prediction)"), ("three", 3, "(prediction, targets, rows)")):
        many = tmp_path / "many.py"
        many.write_text("def one(prediction):\n    return 1\ndef three(prediction, targets, rows):\n    return 1\n")
        with pytest.raises(ConfigError) as caught:
            get_metric(f"{many}:{name}")
        assert f"is {name}{signature} ({many}, line {line}); it must take two arguments" in str(caught.value)
    with pytest.raises(ConfigError, match=r"there is no function 'missing' in .*own_scoring\.py"):
        get_metric(f"{file}:missing")
    with pytest.raises(ConfigError, match=r"there is no file nowhere\.py"):
        get_metric("nowhere.py:grade")
    with pytest.raises(ConfigError, match=r"No module named 'nowhere'; give a file as file\.py:function"):
        get_metric("nowhere:grade")


def test_auto_picks_the_metric_by_task():
    names = [metric_for(task) for task in ("math", "qa", "classification", None)]
    assert names == ["numeric_match", "token_f1", "label_match", "exact_match"]
    assert set(names) <= set(METRICS)
