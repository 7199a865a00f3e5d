"""No text that is shown or written holds a key."""

import pytest

from case_tables import table
from prewrite.errors import ConfigError, PrewriteError, TaskModelError, without_keys


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "planted-key-7f3a")
    monkeypatch.setenv("SOME_SECRET", "ab/cd+ef=1234")
    monkeypatch.setenv("OLLAMA_API_KEY", "ollama")


@table("keys_hidden")
def test_keys_are_hidden_and_other_words_are_not(case):
    assert without_keys(case["text"]) == case["shown"]


def test_files_lose_keys_that_are_set_and_keep_what_only_looks_like_one():
    row = "input: the sample key sk-abcdefghijklmnop1234, and planted-key-7f3a"
    assert without_keys(row, guess=False) == "input: the sample key sk-abcdefghijklmnop1234, and [hidden]"


@pytest.mark.parametrize("kind", [PrewriteError, ConfigError, TaskModelError])
def test_no_error_of_ours_holds_a_key(kind):
    error = kind("the server said: planted-key-7f3a is wrong")
    assert "planted" not in str(error) + repr(error) + repr(error.args)
