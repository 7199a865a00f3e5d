"""The openai backend through the real litellm proxy, in front of our own test server. Own script and marker:

python tests/servers/litellm_proxy.py install .venv-litellm
PREWRITE_LITELLM_VENV=.venv-litellm python -m pytest -m server
"""

import json
import os
from pathlib import Path

import pytest

from prewrite.cli.main import main
from prewrite.errors import ModelNotFoundError, TaskModelError
from prewrite.task_models.openai import OpenAITaskModel
from prewrite.task_models.retry import RetryPolicy
from prewrite.task_models.stream import Batch, NoAnswer
from servers.http_server import HTTPServer, as_json
from servers.litellm_proxy import KEY, server
from servers.openai_server import OpenAIApp, answer_to
from servers.real_server import free_port

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]
QUICK = RetryPolicy(attempts=2, first_delay=0.05)


class Behind(OpenAIApp):
    """What answers behind the proxy; some prompts meet with an accident there."""

    async def __call__(self, request):
        if b"a forbidden row" in request.body:
            return as_json({"error": {"message": "The response was filtered", "code": "content_filter"}}, 400)
        if b"a long row" in request.body:
            long = {"message": "This model's maximum context length is 8 tokens.", "code": "context_length_exceeded"}
            return as_json({"error": long}, 400)
        if b"a thoughtful row" in request.body:
            told = {"role": "assistant", "content": None, "reasoning_content": "Hm, could it be"}
            choice = {"index": 0, "message": told, "finish_reason": "length"}
            usage = {"prompt_tokens": 9, "completion_tokens": 64, "total_tokens": 73}
            whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "toy", "choices": [choice]}
            return as_json(whole | {"usage": usage})
        return await super().__call__(request)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = os.environ.get("PREWRITE_LITELLM_VENV")
    if not folder:
        pytest.skip("set PREWRITE_LITELLM_VENV to a folder made by `python tests/servers/litellm_proxy.py install`")
    log = tmp_path_factory.mktemp("litellm") / "proxy.log"
    with (
        HTTPServer(Behind(can=frozenset({"chat", "json_schema", "top"}))) as behind,
        server(Path(folder), free_port(), f"{behind.url}/v1", "toy", log) as running,
    ):
        yield running.address


@pytest.fixture
def opened(address, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    models = []

    def open_model(name="toy", **options):
        models.append(OpenAITaskModel(name, address=address, **({"retry": QUICK} | options)))
        return models[-1]

    yield open_model
    for model in models:
        model.close()


def test_what_the_server_behind_it_can_do_is_found_through_it(opened):
    model = opened()
    assert model.chat and model.capabilities == {"generate", "constrained", "turns"}
    assert model.facts.top_logprobs == 20
    assert model.generate(["a", "b"]) == [answer_to("a").strip(), answer_to("b").strip()]
    assert set(model.constrained(["a", "b"], ("yes", "no"))) <= {"yes", "no"}


def test_rows_that_the_server_behind_it_refuses_have_no_answer(opened):
    prompts = ("a plain row", "a forbidden row", "a long row", "a thoughtful row")
    replies = dict(opened().stream(Batch("generate", prompts)))
    assert [isinstance(replies[row].value, NoAnswer) for row in range(4)] == [False, True, True, True]
    assert "The response was filtered" in replies[1].value.reason
    assert replies[2].value.reason.endswith("raise the server's context length")
    assert replies[3].value.reason == "ran out of its 64 tokens while thinking; raise max_new_tokens"


def test_a_model_that_it_does_not_know_is_told_with_those_that_it_has(opened):
    with pytest.raises(ModelNotFoundError, match=r"model 'big' is not served at .* \(it has: toy\)"):
        opened("big").generate(["a"])


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("sk-wrong-0123456789abcdef", r"No connected db.*and the key in OPENAI_API_KEY"),
        ("", r"whether the server wants a key: OPENAI_API_KEY is not set"),
    ],
)
def test_a_wrong_or_missing_key_is_told_in_its_words_with_the_variable(opened, monkeypatch, key, words):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(TaskModelError, match=words) as raised:
        opened().generate(["a"])
    assert not key or key not in str(raised.value)


def test_eval_runs_through_it_from_the_command_line(address, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("train", "dev", "test"):
        texts = [f"{name} row {number}" for number in range(6)]
        rows = [{"input": text, "output": "yes", "choices": ["yes", "no"]} for text in texts]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["eval", "--data", str(tmp_path), "--instruction", "Is it?", "--task-model", f"openai:toy@{address}"]
    assert main([*flags, "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["n"] == 6
    assert KEY not in shown.out + shown.err
