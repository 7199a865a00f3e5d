"""Shared by all tests: no network, one thread for tiny models, where the benchmark sets are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))  # the toy of examples/toy.py is the tests' toy too
sys.path.insert(0, str(ROOT))  # finetune.py, inference.py, load_datasets.py


@pytest.fixture
def one_thread():
    """Tiny tensors are slower on two threads than on one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
