import json

import pytest

from prewrite.cli.main import main
from prewrite.errors import RunFolderError
from prewrite.report.explain import NO_LABEL, explain, explanation
from prewrite.run_folder import RunFolder
from run_fixture import make_run


def answer(prediction, score):
    return {"prompt": "p", "output": prediction, "prediction": prediction, "score": score}


def run_of(path, rows, *, labels=("spam", "ham")):
    """A run whose test rows are (input, gold, answer before, answer now)."""
    make_run(path, updates=1, test_rows=20)
    run = RunFolder(path)
    items = [
        {"index": i, "input": text, "gold": [gold],
         "answers": {"initial": answer(before, float(before == gold)), "rewrite": answer(now, float(now == gold))}}
        for i, (text, gold, before, now) in enumerate(rows)
    ]  # fmt: skip
    run.items.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    result = json.loads(run.result.read_text(encoding="utf-8"))
    result["test"]["n"] = len(rows)
    for name, at in (("initial", 2), ("rewrite", 3)):
        found = result["test"]["instructions"][name]
        found["mean"] = sum(row[at] == row[1] for row in rows) / len(rows)
        found["labels"] = [{"label": label, "n": 1, "accuracy": 1.0, "predicted": 1} for label in labels]
    run.result.write_text(json.dumps(result), encoding="utf-8")
    return path


ROWS = [
    ("a cruise", "spam", "ham", "ham"),
    ("hello mum", "ham", "ham", "spam"),
    ("dear friend", "ham", "spam", "spam"),
    ("see you", "ham", "ham", "spam"),
    ("win now", "spam", "ham", "spam"),
    ("lottery", "spam", "spam", "perhaps \x1b[2J so"),
    ("bill", "ham", "ham", "ham"),
    ("cheap", "spam", "spam", "spam"),
]


def test_the_confusion_that_costs_most_comes_first_and_all_add_up(tmp_path):
    (found,) = explain(run_of(tmp_path / "run", ROWS), examples=2)
    groups = [(group["gold"], group["given"], group["rows"], group["lost"]) for group in found["groups"]]
    assert groups == [("ham", "spam", 3, 3 / 8), ("spam", "ham", 1, 1 / 8), ("spam", NO_LABEL, 1, 1 / 8)]
    assert found["wrong"] == 5 and found["score"] + sum(group["lost"] for group in found["groups"]) == 1
    assert [row["input"] for row in found["groups"][0]["examples"]] == ["hello mum", "dear friend"]


def test_rows_that_the_initial_prompt_answers_better_are_told(tmp_path):
    (found,) = explain(run_of(tmp_path / "run", ROWS))
    assert (found["mended"], found["broken"]["rows"]) == (1, 3)  # mended: "win now"
    assert [row["input"] for row in found["broken"]["examples"]] == ["hello mum", "see you", "lottery"]
    assert (found["broken"]["examples"][0]["before"], found["broken"]["examples"][0]["after"]) == ("ham", "spam")
    text = explanation(found)
    assert "ham taken for spam: 3 rows, 37.5 points" in text and "1 row became better and 3 rows worse" in text


def test_without_labels_there_is_one_group(tmp_path):
    (found,) = explain(run_of(tmp_path / "run", ROWS, labels=()))
    assert [(group["gold"], group["given"], group["rows"]) for group in found["groups"]] == [(None, None, 5)]
    assert "gold spam; given ham" in explanation(found)


def test_the_command_prints_no_control_characters_and_json_on_request(tmp_path, capsys):
    path = run_of(tmp_path / "run", [*ROWS, ("two\nlines\x1b[31m", "ham", "ham", "spam")])
    assert main(["explain", str(path), "--examples", "9"]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "two lines\\u001b[31m" in printed and "measure a prompt" in printed
    assert main(["explain", str(path), "--json", "--examples", "0"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["instructions"]
    assert found["groups"][0]["rows"] == 4 and found["groups"][0]["examples"] == []
    assert main(["explain", str(path), "--examples", "-1"]) == 2


def test_each_instruction_of_a_run_has_its_own_rows(tmp_path):
    path = run_of(tmp_path / "run", ROWS)
    run = RunFolder(path)
    result = json.loads(run.result.read_text(encoding="utf-8"))
    first = {**result, "test": {**result["test"], "n": 5}}
    second = {**result, "test": {**result["test"], "n": 3}}
    run.result.write_text(json.dumps({**first, "tasks": [first, second]}), encoding="utf-8")
    items = [json.loads(line) for line in run.items.read_text(encoding="utf-8").splitlines()]
    items = [{**item, "index": item["index"] % 5} for item in items]  # each instruction's rows begin anew
    run.items.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    assert [(found["rows"], found["wrong"]) for found in explain(path)] == [(5, 4), (3, 1)]


def test_what_has_no_answers_to_explain_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="no result yet"):
        explain(make_run(tmp_path / "going", finished=False, updates=1))
    with pytest.raises(RunFolderError, match="held out no test rows"):
        explain(make_run(tmp_path / "untested", updates=1, test_rows=0))
    path = run_of(tmp_path / "cut", ROWS)
    lines = RunFolder(path).items.read_text(encoding="utf-8").splitlines(keepends=True)
    RunFolder(path).items.write_text("".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(RunFolderError, match="holds 7 rows"):
        explain(path)
