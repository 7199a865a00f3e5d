"""Two processes over gloo: one policy, one run folder, everybody's rollouts in it, one result."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prewrite.cli.main import main
from prewrite.train import processes
from toy_cli import train_flags

SCRIPT = Path(__file__).parents[1] / "two_processes.py"


def launch(*words):
    """A script and its arguments on two processes; the finished process."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        *map(str, words),
    ]
    places = [str(SCRIPT.parents[1] / "examples"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(places)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


def json_lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_train_one_policy(tmp_path):
    ended = launch(SCRIPT, tmp_path)
    assert ended.returncode == 0, ended.stderr[-2000:]
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert first == pytest.approx(second, rel=1e-9)
    rollouts = [json.loads(line) for line in (tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()]
    assert [sum(row["step"] == step for row in rollouts) for step in (1, 2, 3)] == [64, 64, 64]
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 4  # and one before training
    # Each process samples its own rewrites.
    texts = [row["completion"] for row in rollouts if row["step"] == 1]
    assert texts[:32] != texts[32:]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_the_whole_command_on_two_processes_is_one_run(toy, tmp_path, algorithm):
    flags = train_flags(toy, tmp_path / "run", "--algorithm", algorithm, "--strategy", "S", "--num_candidates", "3")
    finetune = SCRIPT.parents[1] / "finetune.py"
    ended = launch(finetune, *flags[1:])
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.count("Report:") == ended.stderr.count("Estimate:") == 1
    run = tmp_path / "run"
    assert json.loads((run / "config.json").read_text())["processes"] == 2
    assert len(json_lines(run / "metrics.jsonl")) == 3 and len(json_lines(run / "items.jsonl")) == 8
    rewrites = json_lines(run / "rewrites.jsonl")
    on_dev = [row["rewrite"] for row in rewrites if row["event"] == "dev_eval"]  # before training and after it
    assert len(on_dev) == 2 and sum(row["event"] == "selected" for row in rewrites) == 1

    # Four rewrites an update, two on each process, each text graded once by its process on three examples, unless
    # guards refuse it; each text on six dev rows once, by one process. An empty text earns 0 unasked.
    rollouts = json_lines(run / "rollouts.jsonl")
    assert [sum(row["step"] == step for row in rollouts) for step in (1, 2)] == [4, 4]
    graded = [{row["rewrite"] for row in rollouts[at : at + 2] if row.get("real", True)} for at in range(0, 8, 2)]
    texts = sum(len(each - {""}) for each in graded)
    (record,) = run.glob("checkpoints/*/trainer.json")
    asked = json.loads(record.read_text())["cost"]["usage"]["prompts"]
    assert asked >= 3 * texts + 6 * len(set(on_dev))  # tied groups of grpo are graded again
    assert algorithm == "grpo" or asked == 3 * texts + 6 * len(set(on_dev))

    longer = launch(finetune, *flags[1:], "--resume", "--max_steps", "3")
    assert longer.returncode == 0, longer.stderr[-2000:]
    assert len(json_lines(run / "metrics.jsonl")) == 4
    (part,) = json.loads((run / "config.json").read_text())["resumed"]
    assert part["changed"] == {"max_steps": [2, 3]}


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_a_stop_asked_of_another_process_stops_this_one_too(toy, tmp_path, capsys, monkeypatch, algorithm):
    monkeypatch.setattr(processes, "any_of", lambda flag: True)
    assert main(train_flags(toy, tmp_path / "run", "--algorithm", algorithm)) == 130
    assert "Stopped after update 1." in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00001"]


def test_groups_are_not_divided_otherwise_than_they_began(toy, tmp_path, capsys):
    flags = train_flags(toy, tmp_path / "run", "--algorithm", "rloo", "--micro_batch_size", "2")
    assert main(flags) == 0
    assert main([*flags, "--resume", "--micro_batch_size", "4"]) == 2
    assert "micro_batch_size was 2 and is 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--rewrites-per-step", "5"], "rewrites_per_step 5 cannot be shared out evenly among 2"),
        (["--micro_batch_size", "4"], "micro_batch_size 4 does not divide the 2 rewrites of each"),
        (["--max_task_calls", "9"], "max_task_calls is kept by one process"),
    ],
)
def test_what_does_not_fit_two_processes_is_an_error(toy, tmp_path, capsys, monkeypatch, flags, words):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(train_flags(toy, tmp_path / "run", *flags)) == 2
    assert f"error: {words}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
