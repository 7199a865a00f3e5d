"""`--resume` goes on with the same run only, and its record says what changed."""

import json
import re
import shutil

import pytest

from prewrite.cli.main import main
from toy_cli import ROWS, train_flags


def resume(toy, folder, *more, data=None):
    return main(train_flags(toy, folder, "--resume", *more, data=data))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--learning_rate", "1e-5"], ["learning_rate was 5e-06 and is 1e-05", "another run"]),
        (["--guards", "none"], ["guards was"]),
        (["--seed", "1"], ["seed"]),  # the rows are cut by the seed
    ],
)
def test_other_settings_are_refused_and_nothing_is_changed(run_copy, toy, capsys, flags, words):
    before = {file: file.read_bytes() for file in run_copy.rglob("*") if file.is_file()}
    assert resume(toy, run_copy, *flags) == 2
    told = capsys.readouterr().err
    assert all(word in told for word in words), told
    assert {file: file.read_bytes() for file in run_copy.rglob("*") if file.is_file()} == before


def test_other_rows_are_refused(run_copy, toy, tmp_path, capsys):
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS[1:], ROWS[0]]))
    assert resume(toy, run_copy, data=other) == 2
    assert "are not those" in capsys.readouterr().err


def test_another_task_model_is_refused(run_copy, toy, tmp_path, capsys):
    shutil.copytree(toy / "model", tmp_path / "other")
    assert resume(toy, run_copy, "--task_model", str(tmp_path / "other")) == 2
    assert "task_model was" in capsys.readouterr().err


def test_a_longer_run_on_moved_data_is_the_same_run_and_says_so(run_copy, toy, tmp_path):
    moved = shutil.copy(toy / "rows.jsonl", tmp_path / "moved.jsonl")
    assert resume(toy, run_copy, "--max_steps", "3", data=moved) == 0
    config = json.loads((run_copy / "config.json").read_text())
    (part,) = config["resumed"]
    assert part["changed"]["max_steps"] == [2, 3] and part["changed"]["dataset"][1] == [str(moved)]
    assert config["config"]["max_steps"] == 3 and "--resume" not in config["argv"]
    assert len((run_copy / "metrics.jsonl").read_text().splitlines()) == 3
    assert re.search(r"Resumed .*max_steps: 2 → 3", (run_copy / "report.html").read_text())
    assert "max\\_steps: 2 → 3" in (run_copy / "report.md").read_text()


def test_a_budget_counts_on_over_a_resume(toy, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(train_flags(toy, folder, "--max_task_calls", "1000")) == 0
    record = next(folder.glob("checkpoints/*/trainer.json"))
    spent = json.loads(record.read_text())["cost"]["budget"]["calls"]
    assert spent > 0
    assert resume(toy, folder, "--max_task_calls", str(spent)) == 2
    assert f"{spent:,} calls used" in capsys.readouterr().err
    assert resume(toy, folder, "--max_task_calls", "1000") == 0


def test_a_checkpoint_of_another_version_or_cut_off_is_named(run_copy, toy, capsys):
    (folder,) = run_copy.glob("checkpoints/step-*")
    record = json.loads((folder / "trainer.json").read_text())
    del record["cost"]
    (folder / "trainer.json").write_text(json.dumps(record))
    assert resume(toy, run_copy) == 2
    assert f"{folder} cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["policy.safetensors", "optimizer.pt", "scheduler.pt"])
def test_a_cut_off_file_of_a_checkpoint_is_an_error(run_copy, toy, capsys, file):
    (folder,) = run_copy.glob("checkpoints/step-*")
    (folder / file).write_bytes((folder / file).read_bytes()[:100])
    assert resume(toy, run_copy) == 2
    assert f"{folder} cannot be read" in capsys.readouterr().err
