"""From settings to objects: what cannot work is said before anything is paid."""

import json

import pytest

from prewrite.data import load_splits
from prewrite.errors import CapabilityError, ConfigError
from prewrite.run.build import open_counted_task_model, open_rows, open_training_reward
from prewrite.run.config import TaskConfig, TrainConfig
from prewrite.scoring.evaluator import Evaluator
from prewrite.task_models.scripted import ScriptedTaskModel


@pytest.mark.parametrize("mode", ["soft", "perplexity", "perplexity+f1"])
def test_a_reward_that_the_task_model_cannot_give_is_refused_before_anything_is_asked(tmp_path, mode):
    rows = tmp_path / "rows.jsonl"
    lines = [{"instruction": "Answer.", "input": f"question {n}", "output": "yes", "task": "qa"} for n in range(10)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    asked = []
    writer = ScriptedTaskModel(lambda prompt: asked.append(prompt) or "yes", name="writer")
    config = TrainConfig(dataset=[str(rows)], reward_mode=mode, fidelity_model="none")
    with pytest.raises(CapabilityError, match=r"scores gold answers as given texts, which .*writer cannot do"):
        open_training_reward(config, Evaluator(writer), [load_splits(rows)])
    assert asked == []


def test_what_was_guessed_about_the_rows_of_a_command_is_said(tmp_path, caplog):
    rows = tmp_path / "rows.csv"
    rows.write_text("text;label\n" + "".join(f"text {n};{n % 2}.0\n" for n in range(20)), encoding="utf-8")
    columns = {"input": "text", "output": "label"}
    config = TaskConfig(dataset=[str(rows)], column_map=columns, instruction="Judge.", task="classification")
    assert {example.output for example in open_rows(config, "dev")} == {"0", "1"}
    assert caplog.messages[0] == f"{rows}: read as cells between semicolons"
    assert caplog.messages[1].startswith("'Judge.': the labels are numbers (0, 1), and the instruction does not say")


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"dtype": "[half"}, r"task_model_options: dtype is '\[half', which is no YAML; put it in quotes"),
        ({"dtype": "[half]"}, r"task model hf:\..*: dtype is \['half'\]; it must be text"),
    ],
)
def test_an_option_of_a_task_model_that_cannot_be_read_is_named(tmp_path, monkeypatch, option, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    with pytest.raises(ConfigError, match=told):
        open_counted_task_model(TaskConfig(task_model="hf:./model", task_model_options=option))
