"""A rewriter on a server: what it is sent, what is read of its answers, and that its samples differ."""

import pytest

from prewrite.choosing.candidates import propose
from prewrite.choosing.server_rewriter import ServerRewriter
from prewrite.errors import CapabilityError, ConfigError, TaskModelError
from prewrite.rewriter.meta_prompts import build_meta_prompt, format_rewriter_query
from prewrite.task_models.cache import AnswerCache, CachedTaskModel
from prewrite.task_models.counting import CountingTaskModel
from prewrite.task_models.openai import OpenAITaskModel
from prewrite.task_models.scripted import ScriptedTaskModel
from prewrite.task_models.stream import Batch, Sampling, stream
from servers.http_server import HTTPServer
from servers.ollama_server import OllamaApp
from servers.openai_server import OpenAIApp, answer_to

INSTRUCTION = "Sort the mail."


@pytest.fixture
def openai():
    app = OpenAIApp()
    with HTTPServer(app) as server:
        yield app, f"openai:toy@{server.url}/v1"


def asked_for_rewrites(app):
    return [prompt for prompt in app.asked if prompt.startswith("Rewrite the following instruction")]


def test_samples_differ_by_their_seeds_and_are_the_same_for_the_same_seed(openai):
    app, name = openai
    rewriter = ServerRewriter.open(name)
    meta = build_meta_prompt(INSTRUCTION)
    assert rewriter.greedy(INSTRUCTION) == answer_to(meta).strip()
    first = rewriter.sample_rewrites(INSTRUCTION, 5, seed=1)
    assert first == [answer_to(f"{meta}|{1000 + number}").strip() for number in range(5)]
    assert rewriter.sample_rewrites(INSTRUCTION, 5, seed=1) == first
    assert not set(rewriter.sample_rewrites(INSTRUCTION, 5, seed=2)) & set(first)
    assert asked_for_rewrites(app) == [meta] * 16  # the meta prompt, and nothing else
    assert rewriter.model.usage.calls == 16 and rewriter.model.usage.output_tokens == 16


def test_what_a_model_says_around_its_rewrite_is_dropped():
    said = iter(['Sure! Here is the new instruction:\n"Sort the letters."', "...", "**Sort the mail.**"])
    rewriter = ServerRewriter(CountingTaskModel(ScriptedTaskModel(lambda prompt: next(said))))
    assert [rewriter.greedy(INSTRUCTION) for _ in range(3)] == ["Sort the letters.", "", INSTRUCTION]


def test_ollama_is_told_temperature_and_seed():
    app = OllamaApp()
    with HTTPServer(app) as server:
        rewriter = ServerRewriter.open(f"ollama:smollm2:135m@{server.url}")
        found = propose(rewriter, INSTRUCTION, 2, seed=3)
    options = [request["options"] for request in app.requests if request.get("messages")]
    assert [(told["temperature"], told["seed"]) for told in options] == [(0, 0), (1.0, 3000), (1.0, 3001)]
    assert [candidate.source for candidate in found] == ["initial", "greedy"]  # the server writes what it likes best


def test_a_server_that_does_not_chat_is_given_a_text_to_go_on_with():
    app = OpenAIApp(can=frozenset({"completions", "lists"}))
    with HTTPServer(app) as server:
        rewriter = ServerRewriter.open(f"openai:toy@{server.url}/v1")
        assert len(set(rewriter.sample_rewrites(INSTRUCTION, 3, seed=0))) == 3
    assert asked_for_rewrites(app) == [format_rewriter_query(build_meta_prompt(INSTRUCTION))] * 3


def test_a_model_that_refuses_a_temperature_is_asked_without():
    app = OpenAIApp(can=frozenset({"chat"}), hosted=True)
    with HTTPServer(app) as server:
        rewriter = ServerRewriter.open(f"openai:toy@{server.url}/v1")
        assert rewriter.sample_rewrites(INSTRUCTION, 1, seed=0) == [answer_to(build_meta_prompt(INSTRUCTION)).strip()]


def test_an_answer_that_is_not_there_is_an_empty_rewrite_and_said(caplog):
    rewriter = ServerRewriter(CountingTaskModel(ScriptedTaskModel(lambda prompt: "<think>I wonder")))
    assert rewriter.greedy(INSTRUCTION) == ""
    assert "gave no answer to 1 of 1 requests for a rewrite: ran out of tokens while thinking" in caplog.text


def test_no_server_and_no_name_are_one_clear_error():
    with pytest.raises(TaskModelError, match=r"127\.0\.0\.1:9"):
        ServerRewriter.open("openai:toy@http://127.0.0.1:9/v1").greedy(INSTRUCTION)
    with pytest.raises(ConfigError, match="openai:"):
        ServerRewriter.open("openai:")


def test_what_is_drawn_is_neither_cached_nor_asked_of_a_model_that_is_greedy(openai, tmp_path):
    app, name = openai
    model = CachedTaskModel(OpenAITaskModel("toy", address=name.partition("@")[2]), AnswerCache(tmp_path / "a.sqlite"))
    drawn = Batch("generate", ("Say.", "Say."), sampling=(Sampling(1.0, 1), Sampling(1.0, 2)))
    once, again = (sorted(stream(model, drawn), key=lambda reply: reply[0]) for _ in range(2))
    assert [reply.value for _, reply in once] == [reply.value for _, reply in again]
    assert once[0][1].value != once[1][1].value and not any(reply.cached for _, reply in again)
    assert app.asked.count("Say.") == 4
    with pytest.raises(CapabilityError, match="answers greedily"):
        list(stream(ScriptedTaskModel(lambda prompt: "a"), drawn))
