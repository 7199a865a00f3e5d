"""The table of algorithms: where each trainer is, and what it calls our settings."""

import json
import os
import subprocess
import sys

import pytest

from prewrite.train.algorithms import ALGORITHMS
from toy_cli import train_flags

SETTINGS = {
    "response_length": 48, "num_ppo_epochs": 3, "kl_coef": 0.1, "entropy_coef": 0.5, "resample_ties": False, "seed": 7,
}  # fmt: skip


@pytest.mark.parametrize(
    ("algorithm", "arguments"),
    [
        ("ppo", {"response_length": 48, "num_ppo_epochs": 3, "kl_coef": 0.1, "entropy_coef": 0.5}),
        ("grpo", {"max_completion_length": 48, "num_iterations": 3, "beta": 0.1, "resample_ties": False}),
        ("rloo", {"max_completion_length": 48, "num_iterations": 3, "beta": 0.1, "resample_ties": False}),
    ],
)
def test_settings_reach_each_trainer_by_its_own_names(algorithm, arguments):
    assert ALGORITHMS[algorithm].arguments(SETTINGS) == arguments


def test_listing_the_algorithms_needs_no_torch():
    code = "import sys; from prewrite.train.algorithms import ALGORITHMS; print(*ALGORITHMS, 'torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["ppo", "grpo", "rloo", "False"]


MODULE = """
from prewrite.train.ppo import PRewritePPOTrainer

class Mine(PRewritePPOTrainer):
    def update(self, *arguments):
        print("updated by mine")
        return super().update(*arguments)
"""
LINE = "ALGORITHMS['mine'] = Algorithm('mine:Mine')"


@pytest.mark.slow
def test_a_new_algorithm_is_a_module_and_a_line(toy, tmp_path):
    (tmp_path / "mine.py").write_text(MODULE)
    start = f"import sys; from prewrite.train.algorithms import ALGORITHMS, Algorithm; {LINE}"
    code = f"{start}; from prewrite.cli.main import main; sys.exit(main(sys.argv[1:]))"
    flags = train_flags(toy, tmp_path / "run", "--algorithm", "mine")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    ended = subprocess.run(
        [sys.executable, "-c", code, *flags], env=environment, capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.count("updated by mine") == 2
    assert json.loads((tmp_path / "run/config.json").read_text())["config"]["algorithm"] == "mine"
    assert (tmp_path / "run/report.html").is_file()
