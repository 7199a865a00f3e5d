"""Models of the hub: fetched whole and without pickles, found again without a network, and missed quickly."""

import os
import re
import subprocess
import sys

import pytest

from prewrite.lm.hub import hub_reason
from servers.hub_server import HubServer, SilentHub

pytest.importorskip("huggingface_hub")
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"[]"}
LOOK_UP = """
import sys
from prewrite.errors import ModelNotFoundError
from prewrite.lm.embedded import resolve_model
from prewrite.lm.identity import folder_digest
from pathlib import Path
try:
    folder = Path(resolve_model(sys.argv[1]))
    resolve_model(sys.argv[1])  # is not asked for again
    print(folder_digest(folder), *sorted(file.name for file in folder.iterdir()))
except ModelNotFoundError as error:
    print(error)
"""


@pytest.fixture
def look_up(tmp_path):
    """What a new process finds for a model, with a hub's cache of this test."""

    def run(endpoint, model, **variables):
        env = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
        env |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", LOOK_UP, model], env=env | variables, capture_output=True, text=True, check=True
        )
        assert not done.stderr, done.stderr
        return done.stdout.strip()

    return run


def test_a_model_is_fetched_as_safetensors_and_its_digest_follows_the_branch(look_up):
    others = {"pytorch_model.bin": b"a pickle", "README.md": b"about it", "consolidated.safetensors": b"twice"}
    with HubServer("someone/model", FILES | others) as hub:
        first, *names = look_up(hub.url, "someone/model").split()
        assert names == ["config.json", "model.safetensors", "tokenizer.json"]
        assert {path.rpartition("/")[2] for method, path in hub.asked if method == "GET"} >= set(names)
        assert not [path for _, path in hub.asked if path.endswith((".bin", "consolidated.safetensors"))]
        assert look_up(hub.url, "someone/model").split() == [first, *names]
        hub.files |= {"model.safetensors": b"WEIGHTS"}
        second, *_ = look_up(hub.url, "someone/model").split()
        assert second != first
        hub.refuse()
        assert look_up(hub.url, "someone/model").split() == [second, *names]  # without a network, the last fetched


def test_without_a_hub_within_reach_it_is_asked_once_and_the_remedy_told(look_up):
    with HubServer("someone/model", FILES) as hub:
        hub.refuse()
        told = look_up(hub.url, "someone/model")
        assert told.startswith("model 'someone/model' is no folder here, the hub cannot be reached (Connect")
        assert "was not fetched before; give a folder that holds config.json" in told and "\n" not in told
    told = look_up("http://127.0.0.1:9", "someone/model", HF_HUB_OFFLINE="1")
    assert "the hub cannot be reached (HF_HUB_OFFLINE is set)" in told


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("all_proxy", "socks://127.0.0.1:9", "(?i:socks)"),  # a form that desktops write
        ("https_proxy", "http://127.0.0.1:abc", "abc"),
        ("all_proxy", "socks5://127.0.0.1:9", "SOCKS|Connection"),  # the package for it may be there
    ],
)
def test_a_proxy_that_cannot_be_used_is_told_in_one_line(look_up, variable, value, words):
    others = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "no_proxy"), "")
    told = look_up("https://hub.invalid", "someone/model", **(others | {variable: value}))
    assert re.search(rf"the hub cannot be reached \(\w+ at https://hub\.invalid.*{words}", told) and "\n" not in told


def test_a_missing_file_of_certificates_is_named(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    reason = hub_reason(FileNotFoundError(2, "No such file or directory"))
    assert reason == "SSL_CERT_FILE is '/nowhere/ca.pem', which is not there"
    monkeypatch.setenv("SSL_CERT_FILE", "")
    assert hub_reason(FileNotFoundError(2, "No such file or directory")) == "[Errno 2] No such file or directory"


def test_a_hub_that_does_not_answer_is_not_waited_for(look_up):
    with SilentHub("someone/model", FILES) as hub:
        assert "the hub cannot be reached (" in look_up(hub.url, "someone/model")
        assert hub.asked == [("HEAD", "/")]


def test_a_model_that_the_hub_does_not_have_is_told_by_name(look_up):
    with HubServer("someone/model", FILES) as hub:
        assert "model 'someone/other' could not be fetched from the hub (404" in look_up(hub.url, "someone/other")
