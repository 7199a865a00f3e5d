"""Servers over time: they load, swap their model, refuse parameters, cut prompts, and are remembered for a day."""

import json
import logging
import time

import pytest

from case_tables import table
from prewrite.errors import CapabilityError, ConfigError, TaskModelError
from prewrite.task_models.budget import Budget, BudgetTaskModel
from prewrite.task_models.cache import AnswerCache, CachedTaskModel
from prewrite.task_models.counting import CountingTaskModel
from prewrite.task_models.ollama import OllamaTaskModel
from prewrite.task_models.openai import OpenAITaskModel
from prewrite.task_models.retry import RetryPolicy
from prewrite.task_models.stream import Batch
from prewrite.task_models.token_counts import estimated_tokens, fewest_tokens, token_bound
from prewrite.types import Conversation, Turn
from servers.http_server import HTTPServer, as_json
from servers.ollama_server import OllamaApp
from servers.openai_server import EVERYTHING, OpenAIApp, answer_to

QUICK = RetryPolicy(attempts=3, first_delay=0.01)
CHAT = frozenset({"chat", "json_schema", "top"})


class Server(OpenAIApp):
    """An OpenAI-compatible server whose answers `change(path, fields, answer)` may change, or a test may count."""

    def __init__(self, change=None, **options):
        super().__init__(**options)
        self.change, self.paths, self.bodies = change, [], []

    async def __call__(self, request):
        self.paths.append(request.path)
        fields = request.json() if request.body else {}
        self.bodies.append(fields)
        answer = await super().__call__(request)
        changed = self.change(request.path, fields, json.loads(answer.body)) if self.change else None
        return answer if changed is None else changed


@pytest.fixture
def opened(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    servers, models = {}, []

    def open_model(app, backend=OpenAITaskModel, name="toy", **options):
        if id(app) not in servers:
            servers[id(app)] = HTTPServer(app).__enter__()
        url = servers[id(app)].url + ("/v1" if backend is OpenAITaskModel else "")
        models.append(backend(name, **({"address": url, "retry": QUICK, "timeout": 20} | options)))
        return models[-1]

    yield open_model
    for model in models:
        model.close()
    for server in servers.values():
        server.__exit__()


# ---- loading --------------------------------------------------------------------------------------------------------


def loading_for(requests):
    """Answers the first so many requests as llama.cpp does while it loads."""
    left = [requests]

    def change(path, fields, answer):
        if left[0] > 0:
            left[0] -= 1
            return as_json({"error": {"message": "Loading model", "type": "unavailable_error"}}, 503, Retry_After="0")
        return None

    return change


def test_a_server_that_loads_its_model_is_waited_for_longer_than_one_that_fails(opened, caplog):
    app = Server(loading_for(12), can=CHAT)
    with caplog.at_level(logging.WARNING):
        opened(app, retry=RetryPolicy(attempts=2, first_delay=0.001)).load()
    assert "is loading its model: 0 s so far, waiting up to 120 s" in caplog.text


def test_a_server_that_loads_for_ever_stops_the_run_at_the_stated_limit(opened):
    app = Server(loading_for(10**6), can=CHAT)
    policy = RetryPolicy(attempts=2, first_delay=0.001, loading_seconds=0.05)
    with pytest.raises(TaskModelError, match=r"is still loading its model after \d+ s .*wait until it is ready"):
        opened(app, retry=policy).load()


def test_a_wait_of_an_hour_ends_the_run_at_once_as_a_date_or_a_number(opened):
    app = OpenAIApp(can=CHAT)
    task_model = opened(app)
    task_model.load()
    for value in ("3600", time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 3600))):

        async def busy(request, value=value):
            return as_json({"error": "slow down"}, 429, Retry_After=value)

        app.__class__ = type("Busy", (OpenAIApp,), {"__call__": lambda self, request, busy=busy: busy(request)})
        with pytest.raises(TaskModelError, match=r"asks to wait (3600|3599|3598) s"):
            task_model.stream(Batch("generate", ("a",))).__next__()


# ---- the model behind the name --------------------------------------------------------------------------------------


def telling(**told):
    """Adds to replies and to the listed model what `told` holds at that moment."""

    def change(path, fields, answer):
        if path == "/v1/models" and "listed" in told:
            answer["data"][0] |= told["listed"]
            return as_json(answer)
        if path == "/props" and "props" in told:
            return as_json(told["props"])
        if "choices" in answer and "reply" in told:
            return as_json(answer | told["reply"])
        return None

    change.told = told
    return change


SWAPS = [
    ({"listed": {"root": "/models/a"}}, {"listed": {"root": "/models/b"}}, "/models told root"),
    ({"listed": {"meta": {"n_params": 1, "size": 5}}}, {"listed": {"meta": {"n_params": 2, "size": 5}}}, "meta"),
    ({"listed": {"created": 1700000000}}, {"listed": {"created": 1700009999}}, "created"),
    ({"props": {"model_path": "a.gguf"}}, {"props": {"model_path": "b.gguf"}}, "/props told model_path"),
    ({"props": {"chat_template": "A"}}, {"props": {"chat_template": "B"}}, "/props told chat_template"),
    ({"reply": {"model": "toy-1"}}, {"reply": {"model": "toy-2"}}, "model 'toy-1' became 'toy-2'"),
    ({"reply": {"system_fingerprint": "f1"}}, {"reply": {"system_fingerprint": "f2"}}, "system_fingerprint 'f1'"),
]


@pytest.mark.parametrize(("before", "after", "words"), SWAPS)
def test_a_model_that_is_swapped_during_a_run_stops_it(opened, before, after, words):
    change = telling(**before)
    task_model = opened(Server(change, can=CHAT))
    task_model.generate(["a"])
    change.told |= after
    with pytest.raises(TaskModelError, match=f"answers with another model under the name 'toy': .*{words}"):
        task_model.generate(["b"])


@pytest.mark.parametrize(("before", "after", "words"), SWAPS)
def test_a_model_that_was_swapped_between_runs_gets_no_answers_of_the_old_one(opened, tmp_path, before, after, words):
    app = Server(telling(**before), can=CHAT)
    cache = AnswerCache(tmp_path / "answers.sqlite")
    CachedTaskModel(opened(app), cache).generate(["a"])
    app.change.told |= after
    app.asked.clear()
    CachedTaskModel(opened(app), cache).generate(["a"])
    assert "a" in app.asked
    app.asked.clear()
    CachedTaskModel(opened(app), cache).generate(["a"])
    assert "a" not in app.asked  # and the new one's answer is kept too
    cache.close()


def test_what_changes_with_the_request_is_no_sign_of_another_model(opened):
    def change(path, fields, answer):
        if path == "/v1/models":
            now = {"created": int(time.time()), "permission": [{"id": str(time.time())}], "status": {"value": "idle"}}
            answer["data"][0] |= now
            return as_json(answer)
        return None

    app = Server(change, can=CHAT)
    task_model = opened(app)
    assert task_model.generate(["a", "b"]) == [answer_to("a").strip(), answer_to("b").strip()]
    assert opened(app).identity == task_model.identity


def test_a_hosted_api_that_alternates_its_fingerprint_is_told_of_and_not_kept(opened, tmp_path, monkeypatch, caplog):
    change = telling(reply={"system_fingerprint": "f1"})
    backend = opened(Server(change, can=CHAT))
    backend.load()
    monkeypatch.setattr("prewrite.task_models.openai.is_private", lambda address: False)
    cache = AnswerCache(tmp_path / "answers.sqlite")
    counted = CountingTaskModel(CachedTaskModel(backend, cache))
    change.told["reply"] = {"system_fingerprint": "f2"}
    with caplog.at_level(logging.WARNING):
        counted.generate(["a", "b"])
    assert caplog.text.count("system_fingerprint 'f1' became 'f2'") == 1
    assert cache.info().entries == 0 and counted.usage.other_model == 2
    cache.close()


def test_where_nothing_is_known_of_the_model_it_is_said(opened):
    (note,) = opened(OpenAIApp(can=CHAT)).notes
    assert note.startswith("the server tells nothing of its model but the name")
    assert opened(Server(telling(listed={"root": "/models/a"}), can=CHAT)).notes == []
    assert opened(Server(telling(reply={"system_fingerprint": "f1"}), can=CHAT)).notes == []


@pytest.mark.parametrize("fingerprint", ["toy", "fp_ollama", "2.0.1-native", "3.3.4-sha-0a1b2c3", "b6123-0a1b2c3", ""])
def test_a_fingerprint_that_is_the_servers_version_or_the_models_name_tells_nothing_of_the_model(opened, fingerprint):
    change = telling(reply={"system_fingerprint": fingerprint, "model": "toy"})
    (note,) = opened(Server(change, can=CHAT)).notes
    assert note.startswith("the server tells nothing of its model but the name")


def test_an_ollama_tag_that_is_pulled_again_during_a_run_stops_it(opened):
    app = OllamaApp()
    task_model = opened(app, OllamaTaskModel, "smollm2:135m")
    task_model.generate(["a"])
    app.digest = "e" * 64
    with pytest.raises(TaskModelError, match="is another model now: digest dddddddddddd became eeeeeeeeeeee"):
        task_model.generate(["b"])


# ---- parameters -----------------------------------------------------------------------------------------------------


@table("refused_parameters")
def test_a_parameter_that_is_refused_by_name_is_dropped_once_and_told(opened, case):
    def change(path, fields, answer):
        refused = fields.get("messages") and (case["drops"] or "temperature") in fields
        body = case["error"] if "detail" in case["error"] or "error" in case["error"] else {"error": case["error"]}
        return as_json(body, case["status"]) if refused else None

    app = Server(change, can=CHAT)
    task_model = opened(app)
    if case["drops"] is None:
        with pytest.raises(TaskModelError, match="answers neither"):
            task_model.generate(["a"])
        return
    assert task_model.generate(["a"]) == [answer_to("a").strip()]
    assert sum(case["drops"] in body for body in app.bodies if "messages" in body) == 1  # the first, and never again
    if case["drops"] != "max_tokens":
        assert task_model.notes[-2 if case["drops"] == "temperature" else -1] == (
            f"the server refuses {case['drops']}, so it is asked without"
        )
        assert f"dropped={case['drops']}" in task_model.identity


def test_an_output_limit_that_goes_by_its_newer_name_is_sent_by_that(opened):
    task_model = opened(app := Server(can=CHAT, hosted=True))
    task_model.generate(["a"])
    assert app.bodies[-1]["max_completion_tokens"] == 64 and "max_tokens" not in app.bodies[-1]
    assert task_model.facts.dropped == ("temperature",)


def test_bare_prompts_too_are_sent_without_a_refused_parameter(opened):
    def change(path, fields, answer):
        return as_json({"error": {"message": "unknown field seed"}}, 400) if "seed" in fields else None

    task_model = opened(Server(change, can=frozenset({"completions", "lists"})))
    assert task_model.generate(["a", "b"]) == [answer_to("a"), answer_to("b")]


def test_ollama_is_asked_without_a_field_that_it_refuses_and_that_changes_no_answer(opened):
    class Strict(OllamaApp):
        async def __call__(self, request):
            if b'"truncate"' in request.body:
                return as_json({"error": 'json: unknown field "truncate"'}, 400)
            return await super().__call__(request)

    task_model = opened(Strict(), OllamaTaskModel, "smollm2:135m")
    assert task_model.generate(["one two"]) == ["one two "]


# ---- limits of what is asked ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "message", "found"),
    [
        (20, "", 20),
        (5, "Invalid value for top_logprobs: must be at most 5", 5),
        (5, "'top_logprobs' must be between 0 and 5", 5),
        (8, "top_logprobs: 20 exceeds the maximum of 8", 8),
        (5, "bad request", 5),
    ],
)
def test_as_many_alternatives_are_asked_for_as_the_server_allows(opened, allowed, message, found):
    def change(path, fields, answer):
        if fields.get("top_logprobs", 0) > allowed:
            return as_json({"error": {"message": message}}, 400)
        return None

    app = Server(change, can=CHAT)
    task_model = opened(app, label_scores=True)
    task_model.label_logprobs(["a"], ["positive", "negative"])
    assert app.bodies[-1]["top_logprobs"] == found
    assert f"top={found}" in task_model.identity


def test_label_scores_that_cannot_be_had_are_an_error_and_not_another_way_of_reading(opened):
    with pytest.raises(CapabilityError, match="label_scores needs log-probabilities in chat"):
        _ = opened(OpenAIApp(can=frozenset({"chat", "json_schema"})), label_scores=True).capabilities


def test_a_null_log_probability_counts_as_absent(opened):
    def change(path, fields, answer):
        if fields.get("top_logprobs"):
            top = [{"token": "positive", "logprob": -1.0}, {"token": "negative", "logprob": None}]
            answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"] = [*top, {"token": "x", "logprob": -3.0}]
            return as_json(answer)
        return None

    task_model = opened(Server(change, can=CHAT), label_scores=True)
    assert task_model.label_logprobs(["a"], ["positive", "negative"]).tolist() == [[-1.0, -3.0]]


THINKING = {"message": {"content": None, "reasoning_content": "Hm"}, "finish_reason": "length"}


def test_a_model_that_thinks_through_a_short_probe_still_shows_that_it_keeps_a_schema(opened):
    def change(path, fields, answer):
        if path == "/v1/chat/completions" and fields["max_tokens"] < 1000:
            answer["choices"][0] |= THINKING
            return as_json(answer)
        return None

    task_model = opened(Server(change, can=CHAT), max_new_tokens=2000)
    assert "constrained" in task_model.capabilities and task_model.facts.thinks
    assert task_model.constrained(["a"], ["yes", "no"]) in (["yes"], ["no"])
    assert task_model.notes[-1].startswith("the model thinks before it answers")


def test_a_thinking_model_that_refuses_short_limits_is_probed_with_longer_ones(opened):
    words = "Could not finish the message because max_tokens or model output limit was reached."

    def change(path, fields, answer):
        if path == "/v1/chat/completions" and fields["max_tokens"] < 1000:
            return as_json({"error": {"message": words}}, 400)
        return None

    app = Server(change, can=CHAT)
    task_model = opened(app, max_new_tokens=2000)
    assert task_model.generate(["a"]) == [answer_to("a").strip()]
    assert "constrained" in task_model.capabilities and "chat" not in task_model.facts.why_not
    ((_, reply),) = opened(app, max_new_tokens=64).stream(Batch("generate", ("a",)))
    assert reply.value.reason == f"the server refused it: HTTP 400: {words}; raise max_new_tokens"


def test_a_schema_that_thinking_leaves_unknown_is_said_aloud(opened, caplog):
    def change(path, fields, answer):
        if path == "/v1/chat/completions":
            answer["choices"][0] |= THINKING
            return as_json(answer)
        return None

    task_model = opened(Server(change, can=CHAT))
    with caplog.at_level(logging.WARNING):
        assert task_model.capabilities == {"generate", "turns"}
    assert "the model thinks for more than 4096 tokens, so it is not known" in caplog.text
    assert "used 4096 tokens for thinking" in task_model.why_not("constrained")


LONG = "It was a long and winding film about rivers. " * 1000


def test_a_prompt_that_a_server_cut_in_silence_has_no_answer(opened):
    def change(path, fields, answer):
        if LONG in json.dumps(fields):
            return as_json(answer | {"usage": {"prompt_tokens": 2050, "completion_tokens": 1}})
        return None

    task_model = opened(Server(change, can=CHAT))
    ((_, reply),) = task_model.stream(Batch("generate", (LONG,)))
    assert reply.value.reason == (  # nine words and a full stop, a thousand times
        "the server cut the prompt: it read 2,050 tokens of 10,000 or more; raise the server's context length"
    )


def test_of_bare_prompts_in_one_request_the_one_that_was_cut_is_found(opened):
    def change(path, fields, answer):
        if LONG in json.dumps(fields):
            prompts = fields["prompt"] if isinstance(fields["prompt"], list) else [fields["prompt"]]
            return as_json(
                answer | {"usage": {"prompt_tokens": 2040 + len(prompts), "completion_tokens": len(prompts)}}
            )
        return None

    task_model = opened(Server(change, can=frozenset({"completions", "lists"})))
    replies = dict(task_model.stream(Batch("generate", ("a", LONG, "b"))))
    assert [isinstance(replies[row].value, str) for row in range(3)] == [True, False, True]


def test_ollama_refuses_what_it_would_cut_and_what_an_older_one_cuts_is_noticed(opened):
    app = OllamaApp()
    task_model = opened(app, OllamaTaskModel, "smollm2:135m", num_ctx=16_384)
    task_model.generate(["a"])
    assert app.requests[-1]["truncate"] is False
    app.prompt_eval_count = 2050
    ((_, reply),) = task_model.stream(Batch("generate", (LONG,)))
    assert reply.value.reason == (
        "the server cut the prompt: it read 2,050 tokens of 10,000 or more; "
        "num_ctx is 16384: raise num_ctx, or shorten the row"
    )


def test_a_cut_prompt_without_spaces_is_noticed_too(opened):
    app = OllamaApp(prompt_eval_count=2050)
    ((_, reply),) = opened(app, OllamaTaskModel, "smollm2:135m").stream(Batch("generate", ("x" * 54_000,)))
    assert reply.value.reason.startswith("the server cut the prompt: it read 2,050 tokens of 3,375 or more; num_ctx")


def test_a_prompt_that_cannot_fit_is_not_sent_to_ollama(opened):
    app = OllamaApp()
    ((_, reply),) = opened(app, OllamaTaskModel, "smollm2:135m").stream(Batch("generate", (LONG,)))
    assert reply.value.reason.startswith("it has 10,000 tokens or more, and num_ctx is 4096: raise num_ctx")
    assert LONG not in app.asked


@pytest.mark.parametrize(
    ("text", "fewest"),
    [
        ("", 0),
        ("a", 1),
        ("Is it good? Yes.", 6),  # four words, two signs
        ("don't", 1),
        ("self.foo.bar(x)", 5),  # self .foo .bar (x )
        ("[1, 2]", 4),
        ("x" * 40, 3),  # a token seldom has more than 16 letters
        ("====", 1),
        ("电影很好看", 2),  # five characters, four to a token at most
        ("  \n\n ", 0),
    ],
)
def test_the_fewest_tokens_of_a_text_are_its_words_and_signs(text, fewest):
    assert fewest_tokens(text) == fewest


def test_the_tokens_of_a_conversation_are_those_of_its_turns_without_the_names_of_roles():
    turns = Conversation((Turn("user", "Is it good?"), Turn("assistant", "Yes."), Turn("user", "a")))
    assert (fewest_tokens(turns), estimated_tokens(turns)) == (4 + 2 + 1, 3 + 1 + 1)
    assert token_bound("a", "b") == 2 + 64
    assert token_bound(turns, "b") == 11 + 4 + 1 + 1 + 64 + 2 * 16  # bytes, the template, two more turns


# ---- tokens that nobody counted -------------------------------------------------------------------------------------


@pytest.mark.parametrize("usage", [{}, None, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}])
def test_a_server_that_counts_no_tokens_is_held_to_the_reservation(opened, usage):
    def change(path, fields, answer):
        return as_json(answer | {"usage": usage}) if "choices" in answer else None

    backend = opened(Server(change, can=CHAT), max_new_tokens=10)
    budget = Budget(max_tokens=1000)
    counted = CountingTaskModel(BudgetTaskModel(backend, budget))
    counted.generate(["abcdefgh"])
    assert (budget.spent.input_tokens, budget.spent.output_tokens) == (8 + 64, 10)  # a token per byte, and the limit
    usage = counted.usage  # estimated: four characters a token
    assert (usage.uncounted, usage.input_tokens, usage.output_tokens) == (1, 2, 1)


# ---- remembered for a day -------------------------------------------------------------------------------------------


def test_what_a_server_can_do_is_asked_once_a_day(opened, monkeypatch):
    app = Server(can=EVERYTHING)
    opened(app).generate(["a"])
    first = len(app.paths)
    app.paths.clear()
    second = opened(app)
    assert second.generate(["b"]) == [answer_to("b")] and second.facts.echo
    assert len(app.paths) < first / 2
    app.paths.clear()
    later = time.time() + 25 * 60 * 60
    monkeypatch.setattr("prewrite.task_models.known_servers.time.time", lambda: later)
    opened(app).generate(["c"])
    assert len(app.paths) == first


def test_a_server_that_tells_something_else_of_itself_is_asked_anew(opened):
    app = Server(telling(listed={"root": "a"}), can=CHAT)
    assert "constrained" in opened(app).capabilities
    app.change.told["listed"] = {"root": "b"}
    app.can = frozenset({"chat"})
    assert "constrained" not in opened(app).capabilities


def test_a_probe_that_breaks_a_server_is_not_sent_again_and_the_reason_is_told(opened):
    def change(path, fields, answer):
        if "response_format" in fields:
            return as_json({"error": {"message": "grammar compiler crashed"}}, 500)
        return None

    app = Server(change, can=CHAT)
    task_model = opened(app)
    assert "constrained" not in task_model.capabilities
    assert sum("response_format" in body for body in app.bodies) == 2  # once for each kind of schema
    assert "HTTP 500: grammar compiler crashed" in task_model.why_not("constrained")


def test_a_server_that_answers_nothing_is_told_in_its_own_words(opened):
    def change(path, fields, answer):
        return as_json({"error": {"message": "No connected db.", "type": "no_db"}}, 500) if fields else None

    with pytest.raises(TaskModelError, match=r"/chat/completions: HTTP 500: No connected db\."):
        opened(Server(change, can=CHAT)).generate(["a"])


@pytest.mark.parametrize(
    ("app", "capability", "reason"),
    [
        (OpenAIApp(can=frozenset({"completions", "echo"}), shifted=True), "label_logprobs", "shifted by one token"),
        (OpenAIApp(can=frozenset({"completions"})), "label_logprobs", "it returns no log-probabilities"),
        (OpenAIApp(can=frozenset({"completions"})), "constrained", "it ignores structured_outputs"),
        (OpenAIApp(can=frozenset({"chat"})), "constrained", "it does not keep the schema"),
        (
            OpenAIApp(can=CHAT),
            "label_logprobs",
            "no /completions: HTTP 404: Not Found; label_scores=true reads labels",
        ),
        (OpenAIApp(can=CHAT), "target_logprobs", "no /completions: HTTP 404: Not Found"),
    ],
)
def test_the_reason_for_what_is_not_offered_is_told(opened, app, capability, reason):
    assert reason in opened(app).why_not(capability)


def test_a_key_that_cannot_be_one_is_refused_before_anything_is_sent(opened, monkeypatch):
    app = Server(can=CHAT)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted\n")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY holds a line end"):
        opened(app)
    assert app.paths == []
