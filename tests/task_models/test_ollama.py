"""The ollama backend against the test server."""

import math
import time

import pytest

from prewrite.errors import CapabilityError, ModelNotFoundError, TaskModelError
from prewrite.task_models.checks import check_task_model
from prewrite.task_models.ollama import OllamaTaskModel
from prewrite.task_models.retry import RetryPolicy
from prewrite.types import Conversation, Turn
from servers.http_server import HTTPServer
from servers.ollama_server import EmbeddedModel, OllamaApp

LABELS = ("positive", "negative")
QUICK = RetryPolicy(attempts=3, first_delay=0.01)


@pytest.fixture
def app():
    return OllamaApp()


@pytest.fixture
def server(app):
    with HTTPServer(app) as server:
        yield server


@pytest.fixture
def opened(server):
    models = []

    def open_model(model="smollm2:135m", **options):
        options = {"address": server.url, "retry": QUICK, "timeout": 20} | options
        models.append(OllamaTaskModel(model, **options))
        return models[-1]

    yield open_model
    for model in models:
        model.close()


def test_the_model_is_loaded_once_before_the_first_batch(app, opened):
    app.load_seconds = 0.2
    task_model = opened(timeout=5)
    assert task_model.generate(["one two", "three four"]) == ["one two ", "three four "]
    task_model.generate(["five"])
    assert "prompt" not in app.requests[0] and "messages" not in app.requests[0]  # the load
    assert [request.get("messages", [{}])[0].get("content") for request in app.requests[1:]][-1] == "five"
    assert len(app.requests) == 4


def test_requests_are_greedy_limited_and_keep_the_model(app, opened):
    opened(max_new_tokens=5, num_ctx=512, keep_alive="3m").generate(["a b"])
    request = app.requests[-1]
    assert request["options"] == {"temperature": 0, "seed": 0, "num_predict": 5, "num_ctx": 512}
    assert request["keep_alive"] == "3m" and request["stream"] is False and "think" not in request


def test_labels_are_constrained_by_a_schema(app, opened):
    task_model = opened()
    assert task_model.constrained(["a good film", "a bad film"], LABELS) == ["positive", "negative"]
    assert app.requests[-1]["format"]["properties"]["label"]["enum"] == list(LABELS)


def test_a_bare_prompt_is_sent_raw(app, opened):
    assert opened(chat=False).generate(["just this"]) == ["just this "]
    assert app.requests[-1]["raw"] is True and app.requests[-1]["prompt"] == "just this"


def test_a_conversation_is_sent_as_its_messages_and_not_raw(app, opened):
    turns = Conversation((Turn("user", "a good film"), Turn("assistant", "positive"), Turn("user", "a bad film")))
    assert opened().constrained([turns], LABELS) == ["negative"]
    assert app.requests[-1]["messages"] == [
        {"role": "user", "content": "a good film"},
        {"role": "assistant", "content": "positive"},
        {"role": "user", "content": "a bad film"},
    ]
    asked = len(app.requests)
    with pytest.raises(CapabilityError, match=r"cannot do 'turns' .*: prompts are sent bare; chat=true"):
        opened(chat=False).generate([turns])
    assert len(app.requests) == asked


def test_thinking_is_turned_off_where_the_model_has_it(app, opened):
    app.thinks = True
    opened().generate(["a"])
    assert app.requests[-1]["think"] is False


def test_label_scores_come_from_the_likeliest_tokens(opened):
    task_model = opened(label_scores=True)
    assert "label_logprobs" in task_model.capabilities
    scores = task_model.label_logprobs(["a good film", "a bad film"], LABELS)
    # " positive" 0.6 and "positive" 0.1 are the same label; " negative" 0.2
    assert scores[0] == pytest.approx([math.log(0.7), math.log(0.2)])
    assert scores[1] == pytest.approx([math.log(0.2), math.log(0.7)])


def test_a_label_that_is_not_there_gets_the_lowest_value_shown_and_none_at_all_is_an_error(opened):
    task_model = opened(label_scores=True)
    assert task_model.label_logprobs(["a good film"], ["positive", "mixed"])[0] == pytest.approx(
        [math.log(0.7), math.log(0.05)]
    )
    with pytest.raises(TaskModelError, match=r"none of the labels \['blue', 'red'\] is among the 4 likeliest"):
        task_model.label_logprobs(["a good film"], ["blue", "red"])


def test_label_scores_are_off_by_default_and_need_a_new_server(app, opened):
    assert opened().capabilities == {"generate", "constrained", "turns"}
    with pytest.raises(CapabilityError, match="cannot do 'label_logprobs'"):
        opened().label_logprobs(["a"], LABELS)
    app.version = "0.12.10"
    with pytest.raises(CapabilityError, match=r"needs Ollama 0\.12\.11 or newer, http.* is 0\.12\.10"):
        opened(label_scores=True).generate(["a"])


def test_an_old_server_cannot_constrain(app, opened):
    app.version = "0.4.7"
    assert opened().capabilities == {"generate", "turns"}


def test_a_missing_model_is_told_with_the_line_that_pulls_it(opened):
    with pytest.raises(
        ModelNotFoundError, match=r"'gemma3:4b' is not on .* \(it has: smollm2:135m\); run `ollama pull gem"
    ):
        opened("gemma3:4b").generate(["a"])


def test_no_server_is_told_with_its_address(server):
    server.refuse()
    task_model = OllamaTaskModel("m", address=server.url, retry=QUICK)
    start = time.monotonic()
    with pytest.raises(TaskModelError, match=rf"the Ollama server at {server.url} failed 3 times.*`ollama serve`"):
        task_model.generate(["a"])
    assert time.monotonic() - start < 10
    task_model.close()


def test_another_kind_of_server_is_told_apart(opened, app):
    app.__class__ = type("Other", (OllamaApp,), {"__call__": _not_ollama})
    with pytest.raises(TaskModelError, match="does not speak Ollama's API"):
        opened().generate(["a"])


async def _not_ollama(self, request):
    from servers.http_server import Response

    return Response(200, b"hello", "text/html")


def test_the_identity_holds_digest_version_and_settings_but_not_the_address(server, opened):
    identity = opened(num_ctx=512).identity
    assert "d" * 64 in identity and "0.12.11" in identity and "num_ctx=512" in identity
    assert server.url not in identity


def test_no_more_requests_are_open_than_asked_for(app, server, opened):
    app.answer_seconds = 0.01
    opened(concurrency=3).generate([f"p{number}" for number in range(30)])
    assert server.most_open == 3


def test_the_key_goes_into_the_header_and_nowhere_else(app, opened, monkeypatch):
    monkeypatch.setenv("OLLAMA_API_KEY", "secret-123")
    task_model = opened()
    task_model.generate(["a"])
    assert "secret-123" not in repr(vars(task_model)) + task_model.identity + task_model.name


def test_doctor_tries_each_capability(opened):
    checks = {check.capability: check for check in check_task_model(opened(label_scores=True))}
    assert [name for name, check in checks.items() if check.ok] == [
        "reachable",
        "generate",
        "label_logprobs",
        "constrained",
        "turns",
        "alone and in a batch",
    ]
    assert checks["target_logprobs"].detail == "not offered: Ollama returns no log-probabilities of given texts"


def test_doctor_reports_a_missing_model_instead_of_raising(opened):
    (check,) = check_task_model(opened("gemma3:4b"))
    assert not check.ok and "ollama pull gemma3:4b" in check.detail


def test_the_server_streams_by_default_as_ollama_does(server):
    import ollama

    client = ollama.Client(server.url)
    parts = list(client.generate("smollm2:135m", "one two three", stream=True, logprobs=True, top_logprobs=1))
    assert "".join(part.response for part in parts) == "one two three "
    assert [part.done for part in parts] == [False, False, False, True] and parts[0].logprobs[0].token == "one "
    with pytest.raises(ollama.ResponseError, match="model 'nope' not found"):
        client.show("nope")
    with pytest.raises(ollama.ResponseError, match="top_logprobs must be between 0 and 20"):
        client.generate("smollm2:135m", "x", top_logprobs=21)
    assert client.generate("smollm2:135m", "", keep_alive=0).done_reason == "unload"


def test_the_test_server_can_answer_with_a_real_model(toy, opened, app):
    from prewrite.task_models.hf import HFTaskModel

    app.model = EmbeddedModel(str(toy / "model"))
    prompts = ["say the task", "the answer is"]
    written = HFTaskModel(str(toy / "model"), max_new_tokens=6).generate(prompts)
    spaceless = [text.replace(" ", "") for text in written]  # the toy's tokens are words without the space before
    assert opened(chat=False, max_new_tokens=6).generate(prompts) == spaceless
