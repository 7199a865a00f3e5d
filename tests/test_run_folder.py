"""The files of a run: whole or absent, never overwritten by accident, readable whatever a model wrote."""

import json
from pathlib import Path

import pytest

from prewrite.errors import RunFolderError
from prewrite.files import write_atomic
from prewrite.run_folder import RunFolder


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    RunFolder.write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        RunFolder.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_rows_survive_any_text(tmp_path):
    path = tmp_path / "rollouts.jsonl"
    rows = [{"rewrite": text} for text in ("plain", "zwei\nZeilen", "\U0001f600", "half a pair \ud83d", "</script>")]
    RunFolder.append(path, rows[:2])
    RunFolder.append(path, rows[2:])
    assert list(RunFolder.read_rows(path)) == rows


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [row["step"] for row in RunFolder.read_rows(path)] == [1, 2]
    RunFolder(tmp_path).truncate_all(after_step=1)
    assert path.read_text() == '{"step": 1}\n'


def test_a_line_cut_off_within_a_letter_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + '{"text": "é'.encode()[:-1])
    assert list(RunFolder.read_rows(tmp_path / "metrics.jsonl")) == [{"step": 1}]


def test_a_run_whose_removal_was_cut_off_is_still_a_run(tmp_path, monkeypatch):
    run = RunFolder.create(tmp_path / "run")
    for file in (run.config, run.splits, run.rollouts, run.result):
        file.write_text("{}")
    removed, unlink = [], Path.unlink

    def remove(path, **settings):
        removed.append(path)
        unlink(path, **settings)

    monkeypatch.setattr(Path, "unlink", remove)
    RunFolder.create(run.path, overwrite=True)
    assert removed[-1] == run.config and not any(run.path.iterdir())


def test_a_run_is_replaced_only_on_request_and_the_users_own_files_stay(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    run.write_json(run.config, {})
    (run.path / "notes.txt").write_text("mine")
    (run.checkpoints / "step-00001").mkdir(parents=True)
    with pytest.raises(RunFolderError, match="--overwrite"):
        RunFolder.create(run.path)
    RunFolder.create(run.path, overwrite=True)
    assert sorted(path.name for path in run.path.iterdir()) == ["notes.txt"]


def test_a_run_that_ended_before_its_first_update_stands_in_nobodys_way(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    run.write_json(run.config, {"of": "the first try"})
    RunFolder.create(run.path)
    assert not run.config.exists()


def test_a_line_that_is_no_json_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl:2 is not valid JSON"):
        list(RunFolder.read_rows(tmp_path / "metrics.jsonl"))


def test_a_folder_without_a_run_and_a_file_are_refused(tmp_path):
    with pytest.raises(RunFolderError, match=r"no config\.json"):
        RunFolder.open(tmp_path)
    write_atomic(tmp_path / "file", "x")
    with pytest.raises(RunFolderError, match=r"'.*file/run' cannot be made \(Not a directory\)"):
        RunFolder.create(tmp_path / "file" / "run")
    with pytest.raises(RunFolderError, match="is a file"):
        RunFolder.create(tmp_path / "file")


def test_broken_json_is_named(tmp_path):
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"result\.json is not valid JSON"):
        RunFolder.read_json(tmp_path / "result.json")
    with pytest.raises(RunFolderError, match="missing"):
        RunFolder.read_json(tmp_path / "nothing.json")


def test_an_earlier_result_is_replaced_whole_or_kept_whole(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    run.append(run.rewrites, [{"event": "dev_eval", "step": 3}, {"event": "race"}])
    run.append(run.items, [{"id": 1}])
    run.write_json(run.result, {"rewrite": "earlier"})

    with pytest.raises(KeyboardInterrupt), run.replacing_result():
        assert not run.result.exists() and not run.items.exists()
        run.append(run.rewrites, [{"event": "race, half"}])
        raise KeyboardInterrupt
    assert run.read_json(run.result) == {"rewrite": "earlier"} and list(run.read_rows(run.items)) == [{"id": 1}]
    assert [row["event"] for row in run.read_rows(run.rewrites)] == ["dev_eval", "race"]

    with run.replacing_result():
        run.append(run.rewrites, [{"event": "new race"}])
        run.write_json(run.result, {"rewrite": "new"})
    assert run.read_json(run.result) == {"rewrite": "new"} and not run.items.exists()
    assert [row["event"] for row in run.read_rows(run.rewrites)] == ["dev_eval", "new race"]
