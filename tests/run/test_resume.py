"""`--resume` goes on with the same run only, and its record says what changed."""

import json
import os
import re
import shutil

import pytest

from prewrite.cli.main import main
from prewrite.files import write_checksums
from prewrite.run_folder import RunFolder
from prewrite.task_models.ledger import read
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
    assert [row["step"] for row in RunFolder.read_rows(run_copy / "metrics.jsonl")] == [0, 1, 2, 3]
    assert re.search(r"Resumed .*max_steps: 2 → 3", (run_copy / "report.html").read_text())
    assert "max\\_steps: 2 → 3" in (run_copy / "report.md").read_text()


def test_a_budget_counts_on_over_a_resume(toy, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(train_flags(toy, folder, "--max_task_calls", "1000")) == 0
    record = next(folder.glob("checkpoints/*/trainer.json"))
    trained = json.loads(record.read_text())["cost"]["budget"]["calls"]
    spent = read(folder / "budget.bin").calls
    assert spent > trained > 0  # choice and test, after the last checkpoint, count too
    assert resume(toy, folder, "--max_task_calls", str(spent)) == 2
    assert f"{spent:,} calls used" in capsys.readouterr().err
    assert resume(toy, folder, "--max_task_calls", "1000") == 0


def test_a_run_of_a_version_without_a_ledger_counts_on_from_its_checkpoint(toy, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(train_flags(toy, folder, "--max_task_calls", "1000")) == 0
    trained = json.loads(next(folder.glob("checkpoints/*/trainer.json")).read_text())["cost"]["budget"]["calls"]
    (folder / "budget.bin").unlink()
    assert resume(toy, folder, "--max_task_calls", str(trained)) == 2
    assert f"{trained:,} calls used" in capsys.readouterr().err


def test_a_new_run_in_place_of_another_begins_a_budget_of_its_own(toy, tmp_path):
    folder = tmp_path / "run"
    assert main(train_flags(toy, folder, "--max_task_calls", "1000")) == 0
    spent = read(folder / "budget.bin").calls
    assert main(train_flags(toy, folder, "--max_task_calls", "1000", "--overwrite")) == 0
    assert read(folder / "budget.bin").calls == spent
    assert main(train_flags(toy, folder, "--overwrite")) == 0
    assert not (folder / "budget.bin").exists()


def test_a_checkpoint_of_another_version_is_named(run_copy, toy, capsys):
    (folder,) = run_copy.glob("checkpoints/step-*")
    record = json.loads((folder / "trainer.json").read_text())
    del record["cost"]
    (folder / "trainer.json").write_text(json.dumps(record))
    write_checksums(folder)
    assert resume(toy, run_copy) == 2
    assert f"{folder} cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["policy.safetensors", "optimizer.pt", "scheduler.pt"])
def test_a_cut_off_file_of_the_only_checkpoint_is_an_error(run_copy, toy, capsys, file):
    (folder,) = run_copy.glob("checkpoints/step-*")
    (folder / file).write_bytes((folder / file).read_bytes()[:100])
    assert resume(toy, run_copy) == 2
    told = capsys.readouterr().err
    assert f"{folder} is damaged ({file} has 100 of" in told and "--overwrite" in told


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one_and_ends_the_same(toy, tmp_path, caplog):
    folder = tmp_path / "run"
    assert main(train_flags(toy, folder, "--save_steps", "1")) == 0
    rollouts = (folder / "rollouts.jsonl").read_bytes()
    _, second = sorted(folder.glob("checkpoints/step-*"))
    weights = (second / "policy.safetensors").read_bytes()
    (second / "policy.safetensors").write_bytes(b"")
    assert resume(toy, folder, "--save_steps", "1") == 0
    assert f"{second} is damaged (policy.safetensors has 0 of" in caplog.text and "step-00001" in caplog.text
    assert (folder / "rollouts.jsonl").read_bytes() == rollouts
    assert (second / "policy.safetensors").read_bytes() == weights


def test_a_run_without_a_checkpoint_begins_anew(run_copy, toy, caplog):
    rollouts = (run_copy / "rollouts.jsonl").read_bytes()
    shutil.rmtree(run_copy / "checkpoints")
    assert resume(toy, run_copy) == 0
    assert "no checkpoint yet: the run begins anew" in caplog.text
    assert (run_copy / "rollouts.jsonl").read_bytes() == rollouts
    assert len((run_copy / "rewrites.jsonl").read_text().splitlines()) == 2  # before the first update, and at the end


def test_what_a_killed_run_was_writing_is_removed(run_copy, toy):
    half = [".result.json.writing-00000000", "checkpoints/.step-00002.writing-00000000", "checkpoints/checkpoint-4"]
    (run_copy / half[0]).write_text("{")
    for name in half[1:]:
        (run_copy / name).mkdir()
        (run_copy / name / "policy.safetensors").touch()
    assert resume(toy, run_copy) == 0
    assert [name for name in half if (run_copy / name).exists()] == []


def test_an_older_checkpoint_that_a_killed_run_had_half_removed_goes(run_copy, toy):
    (run_copy / "checkpoints" / "step-00001").mkdir()
    assert resume(toy, run_copy, "--save_total_limit", "1") == 0
    assert [path.name for path in run_copy.glob("checkpoints/*")] == ["step-00002"]


@pytest.mark.parametrize("flags", [["--resume"], ["--overwrite"]])
def test_two_runs_do_not_write_to_one_folder(run_copy, toy, capsys, flags):
    before = {file: file.read_bytes() for file in run_copy.rglob("*") if file.is_file() and file.name != ".lock"}
    with RunFolder(run_copy).sole_writer():
        assert main(train_flags(toy, run_copy, *flags)) == 2
    told = capsys.readouterr().err
    assert f"{str(run_copy)!r} is in use: another run writes there (process {os.getpid()} on" in told
    assert {file: file.read_bytes() for file in before} == before
    assert resume(toy, run_copy) == 0  # the lock is free again
