"""The table of algorithms: where each trainer is, and what it calls our settings."""

import subprocess
import sys

import pytest

from prewrite.train.algorithms import ALGORITHMS

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
