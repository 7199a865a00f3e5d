"""What servers send, read right: answers, thoughts, refusals, errors inside a 200, statuses, token counts."""

import re

import pytest

from case_tables import table
from prewrite.errors import CapabilityError, NoAnswerError, TaskModelError
from prewrite.task_models.ollama import OllamaTaskModel
from prewrite.task_models.openai import OpenAITaskModel
from prewrite.task_models.replies import tokens_of
from prewrite.task_models.retry import RetryPolicy, seconds_to_wait
from prewrite.task_models.stream import Batch
from prewrite.task_models.thoughts import spoken
from servers.http_server import HTTPServer
from servers.one_reply import PROMPT, OneReplyOllama, OneReplyOpenAI, Reply

LABELS = ("positive", "negative")
AT_MOST_TWICE = RetryPolicy(attempts=2, first_delay=0.001, loading_seconds=0)


@table("thoughts")
def test_thoughts_are_dropped_and_an_unclosed_one_is_no_answer(case):
    assert spoken(case["text"]).text == case["said"]


@table("usage")
def test_tokens_are_those_that_the_server_counted(case):
    assert list(tokens_of(case["usage"])) == case["tokens"]


@table("retry_after")
def test_retry_after_is_read_as_seconds_or_as_a_date(case):
    assert seconds_to_wait(case["headers"]) == case["seconds"]


@pytest.fixture(scope="module")
def openai_server(tmp_path_factory):
    app = OneReplyOpenAI()
    with HTTPServer(app) as server, pytest.MonkeyPatch.context() as patch:
        patch.delenv("OPENAI_API_KEY", raising=False)
        patch.setenv("PREWRITE_ANSWER_CACHE", str(tmp_path_factory.mktemp("answers") / "answers.sqlite"))
        model = OpenAITaskModel("toy", address=f"{server.url}/v1", retry=AT_MOST_TWICE)
        model.load()
        yield app, model
        model.close()


@pytest.fixture(scope="module")
def ollama_servers():
    """By whether the model says that it thinks."""
    apps = {thinks: OneReplyOllama(thinks=thinks) for thinks in (False, True)}
    with HTTPServer(apps[False]) as plain, HTTPServer(apps[True]) as thinking:
        found = {}
        for thinks, server in ((False, plain), (True, thinking)):
            options = {"address": server.url, "retry": AT_MOST_TWICE, "label_scores": True}
            found[thinks] = apps[thinks], OllamaTaskModel("smollm2:135m", **options)
            found[thinks][1].load()
        yield found
        for _, model in found.values():
            model.close()


def only_reply(model, method):
    """The one reply to PROMPT."""
    labels = LABELS if method in ("constrained", "label_logprobs") else ()
    ((_, reply),) = model.stream(Batch(method, (PROMPT,), labels=labels))
    return reply


def check(case, model):
    """The reply is the case's value, or no answer, or an error."""
    if "error" in case:
        with pytest.raises(TaskModelError, match=case["error"]) as raised:
            only_reply(model, case["method"])
        assert not isinstance(raised.value, NoAnswerError)
        return
    reply = only_reply(model, case["method"])
    if "no_answer" in case:
        assert re.search(case["no_answer"], reply.value.reason)
    else:
        value = case["value"]
        assert reply.value == (tuple(value) if isinstance(value, list) else value)
    if "tokens" in case:
        assert [reply.input_tokens, reply.output_tokens] == case["tokens"]


@table("replies_openai")
def test_a_reply_of_an_openai_server_is_an_answer_or_none_or_an_error(case, openai_server):
    app, model = openai_server
    body = case["body"] if "body" in case else {"choices": [{"index": 0, **case["choice"]}]}
    app.replies, app.sent = [Reply(body)], 0
    check(case, model)


@table("replies_ollama")
def test_a_reply_of_an_ollama_server_is_an_answer_or_none_or_an_error(case, ollama_servers):
    app, model = ollama_servers[case["thinks"]]
    app.replies, app.sent = [Reply(case["body"])], 0
    check(case, model)


@table("statuses")
def test_a_status_refuses_a_row_or_stops_the_run_or_is_asked_again(case, openai_server):
    app, model = openai_server
    app.replies, app.sent = [Reply(case["body"], case["status"])], 0
    if case["outcome"] == "row":
        assert case["words"] in only_reply(model, "generate").value.reason
        assert app.sent == 1
        return
    with pytest.raises(TaskModelError, match=re.escape(case["words"])):
        only_reply(model, "generate")
    assert app.sent == {"stop": 1, "again": 2, "loading": 1}[case["outcome"]]


def test_an_answer_that_is_asked_again_is_the_second_one(openai_server):
    app, model = openai_server
    good = {"choices": [{"index": 0, "message": {"content": "positive"}, "finish_reason": "stop"}]}
    app.replies, app.sent = [Reply({"choices": None, "error": {"message": "busy", "code": 503}}), Reply(good)], 0
    assert model.generate([PROMPT]) == ["positive"]


def test_a_prompt_without_an_answer_is_named(openai_server):
    app, model = openai_server
    cut = {"content": None, "reasoning_content": "It could be negative"}
    app.replies, app.sent = [Reply({"choices": [{"index": 0, "message": cut, "finish_reason": "length"}]})], 0
    with pytest.raises(NoAnswerError, match=rf"openai:toy@.* gave no answer to prompt 2 of 2, '{re.escape(PROMPT)}'"):
        model.generate(["something else", PROMPT])


def test_of_several_prompts_in_one_request_only_the_refused_one_has_no_answer():
    app = OneReplyOpenAI(can=frozenset({"completions", "lists"}))
    app.replies = [Reply({"error": {"message": "flagged", "code": "content_filter"}}, 400)]
    prompts = ["a", "b", PROMPT, "c"]
    with HTTPServer(app) as server:
        model = OpenAITaskModel("toy", address=f"{server.url}/v1", retry=AT_MOST_TWICE)
        replies = dict(model.stream(Batch("generate", tuple(prompts))))
        model.close()
    assert [isinstance(replies[row].value, str) for row in range(4)] == [True, True, False, True]
    assert replies[2].value.reason == "the server refused it: HTTP 400: flagged"


def test_thinking_models_that_lose_a_format_are_told_at_once_with_the_remedy():
    app = OneReplyOllama(thinks=True)
    app.replies = [Reply({"message": {"content": "positive, I think"}, "done": True, "done_reason": "stop"})]
    with HTTPServer(app) as server:
        model = OllamaTaskModel("smollm2:135m", address=server.url, retry=AT_MOST_TWICE)
        with pytest.raises(CapabilityError, match="use --decoding generate"):
            model.constrained([PROMPT], LABELS)
        model.close()
    assert app.sent == 1


def test_a_reply_that_is_nested_too_deeply_is_asked_again_like_any_that_is_no_json(openai_server):
    app, model = openai_server
    app.replies, app.sent = [Reply("[" * 100_000)], 0
    with pytest.raises(TaskModelError, match="the answer is not JSON"):
        model.generate([PROMPT])
    assert app.sent == 2
