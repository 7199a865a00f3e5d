"""Runs that are ended at random moments end as undisturbed ones do in the end; what compares them sees differences."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from prewrite.task_models.ledger import Ledger
from reliability import kill

SCRIPT = Path(kill.__file__)


@pytest.mark.slow
def test_runs_that_are_ended_at_random_moments_go_on_to_the_same_end():
    flags = ["--rounds", "10", "--variant", "several", "--signal", "KILL", "TERM", "INT"]
    done = subprocess.run([sys.executable, SCRIPT, *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 of 10 rounds ended as the undisturbed run did" in done.stdout


@pytest.mark.parametrize(
    ("made", "known", "limit", "wrong"),
    [([2, 3], 5, 5, False), ([2, 3], 5, 9, False), ([2, 3], 4, 9, True), ([2, 3], 6, 5, True), ([2, 3], 5, 4, True)],
)
def test_a_budget_that_was_exceeded_or_forgotten_is_seen(tmp_path, made, known, limit, wrong):
    (tmp_path / "run").mkdir()
    for number, calls in enumerate(made):
        (tmp_path / f"asked-{number}.log").write_text(f"{calls}\n")
    with Ledger(tmp_path / "run" / "budget.bin") as ledger:
        ledger.write(known, 0, 0, 0.0)
    assert bool(kill.beyond(tmp_path, limit)) == wrong


def write_run(folder, *, reward=0.5, seconds=1.0):
    (folder / "rewriter" / "adapter").mkdir(parents=True)
    (folder / kill.WEIGHTS).write_bytes(b"weights")
    (folder / "checkpoints" / "step-00001").mkdir(parents=True)
    (folder / "checkpoints" / "step-00001" / "policy.safetensors").write_bytes(b"policy")
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "reward/mean": reward, "time/dev": seconds}) + "\n")
    (folder / "result.json").write_text(json.dumps({"tasks": [{"score": 1, "cost": {"seconds": seconds}}]}))
    return folder


def test_time_and_cost_alone_may_differ(tmp_path):
    first = write_run(tmp_path / "first")
    assert kill.contents(write_run(tmp_path / "slower", seconds=2.0)) == kill.contents(first)
    assert kill.contents(write_run(tmp_path / "better", reward=0.6)) != kill.contents(first)


@pytest.mark.parametrize(
    "file", [kill.WEIGHTS, "checkpoints/step-00001/policy.safetensors", ".result.json.writing-00000000"]
)
def test_other_bytes_and_half_written_files_are_seen(tmp_path, file):
    first, second = write_run(tmp_path / "first"), write_run(tmp_path / "second")
    (second / file).write_bytes(b"other")
    assert kill.contents(second) != kill.contents(first)


@pytest.mark.slow
def test_a_warm_start_and_a_reward_model_that_were_ended_on_the_way_are_whole_or_not_there():
    flags = ["--rounds", "3", "--algorithm", "ppo", "--variant", "train_reward", "warm_start"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *flags, "--signal", "KILL", "TERM"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 rounds ended as the undisturbed run did" in done.stdout


def test_files_of_a_folder_are_compared_whole_and_names_in_json_in_any_order(tmp_path):
    for name, targets, weights in (
        ("a", ["q", "v"], b"1"),
        ("b", ["v", "q"], b"1"),
        ("c", ["q"], b"1"),
        ("d", [], b"2"),
    ):
        (tmp_path / name / "adapter").mkdir(parents=True)
        (tmp_path / name / "adapter" / "config.json").write_text(json.dumps({"target_modules": targets}))
        (tmp_path / name / "adapter" / "model.safetensors").write_bytes(weights)
    first, second, third, fourth = (kill.files_of(tmp_path / name) for name in "abcd")
    assert first == second and first != third and third != fourth
