"""What happens around a run: a full disk, a folder that goes away or cannot be written, a clock that jumps."""

import json
import os
import shutil
import subprocess
import time
from itertools import cycle

import pytest

from prewrite.cli.main import main
from prewrite.files import damage_of
from prewrite.run_folder import RunFolder
from prewrite.task_models import known_servers
from prewrite.train.algorithms import ALGORITHMS
from reliability.kill import left_behind
from toy_cli import train_flags

each = pytest.mark.parametrize("algorithm", list(ALGORITHMS))
FULL = 9000
"""Bytes at which a file ends on a "full" disk: logs of the toy fit, weights do not."""


def flags(toy, folder, algorithm, *more):
    return train_flags(toy, folder, "--algorithm", algorithm, "--max_steps", "3", "--save_steps", "1", *more)


def at_update(monkeypatch, number, act, *, file="metrics.jsonl"):
    """Let `act()` happen once, when that update's lines have been written to `file` of the run folder."""
    append, done = RunFolder.append, []

    def appending(path, rows):
        rows = list(rows)
        append(path, rows)
        if path.name == file and any(row.get("step") == number for row in rows) and not done:
            done.append(act())

    monkeypatch.setattr(RunFolder, "append", staticmethod(appending))


def told_once(capsys):
    """The one error on the screen, which comes with no traceback."""
    shown = capsys.readouterr().err
    assert shown.count("error: ") == 1 and "Traceback" not in shown, shown
    return shown[shown.index("error: ") :]


@pytest.mark.skipif(os.name == "nt", reason="needs limits on the size of files")
@pytest.mark.parametrize("size", [FULL, 100], ids=["weights do not fit", "no line fits"])
@each
def test_a_full_disk_is_one_message_leaves_the_checkpoint_before_and_the_run_goes_on(
    toy, tmp_path, monkeypatch, capsys, algorithm, size
):
    import resource

    assert main(flags(toy, tmp_path / "straight", algorithm)) == 0
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    at_update(monkeypatch, 2, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1])))
    capsys.readouterr()
    try:
        assert main(flags(toy, tmp_path / "run", algorithm)) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        monkeypatch.undo()
    message = told_once(capsys)
    assert "cannot be written (" in message and "free space" in message
    assert f"step-00001. Answers are in the cache. Go on with: prewrite train --resume {tmp_path / 'run'}" in message
    run = RunFolder(tmp_path / "run")
    assert list(run.checkpoints_by_step()) == [1] and damage_of(run.checkpoint(1)) is None
    assert main(flags(toy, tmp_path / "run", algorithm, "--resume")) == 0
    assert left_behind(tmp_path / "run") == []
    for name in ("rollouts.jsonl", "items.jsonl", "rewriter/adapter/adapter_model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted, which takes root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a file may still be open


def test_a_real_disk_that_fills_up_costs_one_update_and_leaves_no_half_file(
    toy, small_disk, tmp_path, monkeypatch, capsys
):
    filler = small_disk / "filler"
    at_update(monkeypatch, 2, lambda: filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - FULL)))
    assert main(flags(toy, small_disk / "run", "ppo")) == 2
    monkeypatch.undo()
    assert "No space left on device" in told_once(capsys)
    run = RunFolder(small_disk / "run")
    assert list(run.checkpoints_by_step()) == [1] and damage_of(run.checkpoint(1)) is None
    filler.unlink()
    assert main(flags(toy, small_disk / "run", "ppo", "--resume")) == 0
    assert left_behind(small_disk / "run") == [] and RunFolder.read_json(run.result)["test"]["n"] == 8


@pytest.mark.parametrize("file", ["metrics.jsonl", "rollouts.jsonl"])
@each
def test_a_run_folder_that_goes_away_is_one_message_and_is_not_made_again(
    toy, tmp_path, monkeypatch, capsys, algorithm, file
):
    folder = tmp_path / "run"
    at_update(monkeypatch, 2, lambda: shutil.rmtree(folder), file=file)
    assert main(flags(toy, folder, algorithm)) == 2
    assert f"run folder {str(folder)!r} is gone: it was deleted or moved" in told_once(capsys)
    assert not folder.exists()


@pytest.mark.parametrize("more", [["--resume"], ["--overwrite"]])
def test_a_run_folder_that_cannot_be_written_is_one_message(run_copy, toy, capsys, more):
    before = {file: file.read_bytes() for file in run_copy.rglob("*") if file.is_file()}
    for path in (run_copy, *before):
        path.chmod(0o555 if path == run_copy else 0o444)
    if os.access(run_copy, os.W_OK):
        pytest.skip("may write anywhere, as root may")
    try:
        assert main(train_flags(toy, run_copy, *more)) == 2
        assert main(train_flags(toy, run_copy / "below", "--overwrite")) == 2
    finally:
        run_copy.chmod(0o755)
    shown = capsys.readouterr().err
    assert shown.count("error: ") == 2 and shown.count("Permission denied") == 2 and "Traceback" not in shown, shown
    assert {file: file.read_bytes() for file in before} == before


@each
def test_a_clock_that_jumps_by_hours_moves_no_duration_and_no_limit(toy, tmp_path, monkeypatch, algorithm):
    now, jumps = time.time, cycle([0, 5 * 3600, -7 * 3600, 11 * 3600])
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))
    folder = tmp_path / "run"
    began = time.monotonic()
    assert main(flags(toy, folder, algorithm, "--max_minutes", "10")) == 0
    took = time.monotonic() - began
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    times = [value for row in rows for name, value in row.items() if name.startswith("time/")]
    cost = json.loads((folder / "result.json").read_text())["cost"]
    times += [cost["task_model"]["seconds"], *cost["seconds"].values()]
    assert len(times) > 6 and all(0 <= value <= took for value in times)


@pytest.mark.parametrize(
    ("hours", "known"), [(0, True), (23.9, True), (24.1, False), (-0.1, False), (-30, False), (9999, False)]
)
def test_what_is_remembered_for_a_day_holds_for_a_day_and_not_from_the_future(monkeypatch, hours, known):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    known_servers.keep("http://here", "model", {"echo": True})
    monkeypatch.setattr(time, "time", lambda: now + 3600 * hours)
    assert known_servers.recall("http://here", "model") == ({"echo": True} if known else None)
