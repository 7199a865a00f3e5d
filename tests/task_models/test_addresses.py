"""How servers are named and reached: addresses, proxies, certificates, keys. And where data go."""

import sys

import pytest

from case_tables import table
from prewrite.errors import ConfigError, MissingDependencyError
from prewrite.task_models.addresses import client_options, is_private, ollama_url, way_to
from prewrite.task_models.ollama import OllamaTaskModel
from prewrite.task_models.openai import OpenAITaskModel
from prewrite.task_models.registry import TaskModelSpec, destination, parse_task_model
from prewrite.task_models.server import read_key

FROM_ENVIRONMENT = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    """No proxy, certificates, address or key but those of the test, and no package for SOCKS."""
    monkeypatch.setitem(sys.modules, "socksio", None)
    names = [*FROM_ENVIRONMENT, *map(str.lower, FROM_ENVIRONMENT), *CERTIFICATES]
    for name in [*names, "OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_API_KEY", "OLLAMA_HOST"]:
        monkeypatch.delenv(name, raising=False)


@table("ollama_host")
def test_ollama_host_is_read_as_the_official_clients_read_it(case, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", case["given"])
    if "error" in case:
        with pytest.raises(ConfigError, match=f"OLLAMA_HOST .*{case['error']}"):
            OllamaTaskModel("m")
    else:
        assert OllamaTaskModel("m").address == case["address"]


def test_without_ollama_host_the_server_is_on_this_machine():
    assert ollama_url("") == OllamaTaskModel("m").address == "http://127.0.0.1:11434"


@table("task_model_names")
def test_an_address_has_a_scheme_or_the_name_is_refused(case):
    if "error" in case:
        with pytest.raises(ConfigError, match=case["error"]):
            parse_task_model(case["given"])
    else:
        assert parse_task_model(case["given"]) == TaskModelSpec(*case["spec"])


def test_python_refuses_what_the_command_line_refuses(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-abc123")
    for options in ({"model": "m@127.0.0.1:8901/v1"}, {"model": "m", "address": "127.0.0.1:8901/v1"}):
        with pytest.raises(ConfigError, match="begins with http:// or https://"):
            OpenAITaskModel(**options)
    monkeypatch.setenv("OPENAI_BASE_URL", "127.0.0.1:8901/v1")
    with pytest.raises(
        ConfigError, match=r"OPENAI_BASE_URL is '127\.0\.0\.1:8901/v1'; an address begins with http://"
    ):
        OpenAITaskModel("m")


@table("proxies")
def test_proxies_and_certificates_come_from_the_environment_or_are_refused_by_name(case, monkeypatch):
    for name, value in case["environment"].items():
        monkeypatch.setenv(name, value)
    if "error" in case:
        with pytest.raises((ConfigError, MissingDependencyError), match=case["error"]):
            client_options(case["address"])
    else:
        assert client_options(case["address"])["proxy"] == case["proxy"]


def test_a_file_of_certificates_that_holds_none_is_refused(monkeypatch, tmp_path):
    (tmp_path / "ca.pem").write_text("not a certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigError, match="holds no PEM certificates"):
        client_options("https://example.com")


@table("keys")
def test_what_no_key_holds_is_refused_by_the_variables_name_and_the_value_is_not_shown(case, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", case["key"])
    if case["error"] is None:
        assert read_key("OPENAI_API_KEY") == (case["key"] or None)
        return
    with pytest.raises(ConfigError, match=case["error"]) as raised:
        OpenAITaskModel("m", address="http://127.0.0.1:1/v1")
    assert case["key"].strip() not in str(raised.value)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1 (a server on this machine)"),
        ("http://localhost:8000/v1", "http://localhost:8000/v1 (a server on this machine)"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1 (a server on this machine)"),
        ("http://gpu-box:8000/v1", "http://gpu-box:8000/v1 (a server in your network)"),
        ("http://192.168.1.5/v1", "http://192.168.1.5/v1 (a server in your network)"),
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("https://8.8.8.8/v1", "https://8.8.8.8/v1"),
    ],
)
def test_where_data_go_is_said_in_words(address, words):
    assert way_to(address) == words
    assert is_private(address) == ("(" in words)


def test_where_data_go_names_the_proxy_and_the_cloud(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hunter22@proxy:3128")
    assert way_to("https://api.openai.com/v1") == "https://api.openai.com/v1, through the proxy proxy"
    assert destination(parse_task_model("ollama:gpt-oss:120b-cloud")).endswith(", which passes them on to ollama.com")
    assert "ollama.com" not in destination(parse_task_model("ollama:gemma3:4b"))


def test_a_variable_that_is_empty_counts_as_unset(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-abc123")
    assert OpenAITaskModel("m").address == "https://api.openai.com/v1"
