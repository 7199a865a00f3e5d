"""Shared by all tests: no network, one thread for tiny models, where the benchmark sets are."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from chromium import open_browser

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture
def one_thread():
    """Tiny tensors are slower on two threads than on one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; a module that uses it takes `chromium.MARKS`."""
    driver = open_browser()
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """A folder with a tiny model and a data file; `toy_cli.train_flags` trains on them."""
    from toy import toy_model

    from toy_cli import ROWS

    folder = tmp_path_factory.mktemp("toy")
    model, tokenizer = toy_model()
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder


@pytest.fixture(scope="session")
def run(toy, tmp_path_factory):
    """A finished run of `toy`, shared by all tests: what resumes it takes `run_copy`."""
    from prewrite.cli.main import main
    from toy_cli import train_flags

    folder = tmp_path_factory.mktemp("runs") / "first"
    assert main(train_flags(toy, folder)) == 0
    return folder


@pytest.fixture
def run_copy(run, tmp_path):
    """A copy of the finished run that a test may change."""
    return shutil.copytree(run, tmp_path / "copy")


@pytest.fixture(autouse=True)
def own_answer_cache(tmp_path_factory, monkeypatch):
    """Answers, and what is remembered of servers, are a test's own: two may get the same port one after the other."""
    monkeypatch.setenv("PREWRITE_ANSWER_CACHE", str(tmp_path_factory.mktemp("answers") / "answers.sqlite"))
