"""PPO on two processes over gloo: one policy, one run folder, everybody's rollouts in it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("two_processes.py")


def test_two_processes_train_one_policy(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[1] / "examples")}
    ended = subprocess.run(
        [*command, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert first == pytest.approx(second, rel=1e-9)
    rollouts = [json.loads(line) for line in (tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()]
    assert [sum(row["step"] == step for row in rollouts) for step in (1, 2, 3)] == [64, 64, 64]
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3
    # Each process samples its own rewrites.
    texts = [row["completion"] for row in rollouts if row["step"] == 1]
    assert texts[:32] != texts[32:]
