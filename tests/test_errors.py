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


@pytest.mark.parametrize(
    ("variable", "key", "text", "shown"),
    [
        ("AZURE_KEY_2", "second-key-9x9x", "second-key-9x9x", "[hidden]"),
        ("API_TOKEN1", "first-token-1x", "at first-token-1x", "at [hidden]"),
        ("SMTP_PASSWORD", "p&ss<w0rd>", "<p>p&amp;ss&lt;w0rd&gt;</p>", "<p>[hidden]</p>"),
        ("MAX_TOKENS", "1000000", "1000000 rows", "1000000 rows"),
    ],
)
def test_the_value_of_each_variable_that_is_named_as_a_key_is_hidden(monkeypatch, variable, key, text, shown):
    monkeypatch.setenv(variable, key)
    assert without_keys(text) == shown
