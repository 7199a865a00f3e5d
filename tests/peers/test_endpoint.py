"""The endpoint answers in the API's form, counts by role, batches, and stops at its limit."""

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from benchmarks.peers.chat_model import ChatModel
from benchmarks.peers.endpoint import Endpoint, Refusal
from benchmarks.peers.job import ask, counts
from benchmarks.peers.speaker import rendered

from peers.scripted import ScriptedSpeaker
from prewrite.task_models.hf import HFTaskModel
from prewrite.types import Conversation, Turn

ASKED = [{"role": "user", "content": "thing 1 is good\nthing 2 is bad"}]


@pytest.fixture
def endpoint():
    with Endpoint(ScriptedSpeaker()).serve() as served:
        yield served


def test_calls_and_tokens_are_counted_by_role_and_the_same_question_again_counts(endpoint):
    for _ in range(2):
        assert ask(endpoint.url, "task", ASKED, tokens=5) == "negative"
    ask(endpoint.url, "proposer", ASKED, tokens=50, temperature=1.0)
    assert counts(endpoint.url) == {
        "task": {"calls": 2, "prompt_tokens": 18, "completion_tokens": 2, "refused": 0},
        "proposer": {"calls": 1, "prompt_tokens": 9, "completion_tokens": 5, "refused": 0},
    }
    assert endpoint.model.batches == [1, 1]  # one task call came from memory


def test_the_proposer_writes_something_else_each_time_and_the_same_in_the_next_run(endpoint):
    runs = []
    for _ in range(2):
        endpoint.reset(seed=3)
        runs.append([ask(endpoint.url, "proposer", ASKED, tokens=50, temperature=1.0) for _ in range(2)])
    assert runs[0] == runs[1] and runs[0][0] != runs[0][1]


def test_beyond_the_limit_task_calls_get_an_error_and_the_proposer_goes_on(endpoint):
    endpoint.reset(limit=2)
    for _ in range(2):
        ask(endpoint.url, "task", ASKED, tokens=5)
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(endpoint.url, "task", ASKED, tokens=5)
    told = json.load(refused.value)["error"]
    assert refused.value.code == 400
    assert told["code"] == "budget_exhausted" and told["message"] == "the budget of 2 task calls is spent"
    assert ask(endpoint.url, "proposer", ASKED, tokens=50)
    assert endpoint.told()["task"] == {"calls": 2, "prompt_tokens": 18, "completion_tokens": 2, "refused": 1}


def test_requests_that_come_together_go_through_the_model_together():
    model = ScriptedSpeaker()
    prompts = [[{"role": "user", "content": f"thing {at} is good"}] for at in range(24)]
    with Endpoint(model, pause=0.2).serve() as endpoint, ThreadPoolExecutor(24) as pool:
        list(pool.map(lambda prompt: ask(endpoint.url, "task", prompt, tokens=5), prompts))
    assert sum(model.batches) == 24 and max(model.batches) > 8


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        ({"model": "gpt", "messages": ASKED}, "model_not_found", 404),
        ({"model": "task", "messages": []}, "invalid_request", 400),
        ({"model": "task", "messages": [{"role": "tool", "content": "x"}]}, "invalid_request", 400),
        ({"model": "task", "messages": ASKED, "stream": True}, "invalid_request", 400),
        ({"model": "task", "messages": [{"role": "user", "content": "w " * 600}]}, "context_length_exceeded", 400),
    ],
)
def test_what_it_cannot_answer_is_refused_with_a_code(endpoint, body, code, status):
    with pytest.raises(Refusal) as refused:
        endpoint.answer(body)
    assert (refused.value.code, refused.value.status) == (code, status)


def test_what_is_no_json_and_what_is_elsewhere_is_refused_over_http(endpoint):
    for path, body in (("chat/completions", b"{"), ("completions", b"{}")):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(f"{endpoint.url}/{path}", body), timeout=10)
        assert refused.value.code in (400, 404)


def test_it_listens_on_this_machine_alone_and_lists_its_roles(endpoint):
    assert endpoint.url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(f"{endpoint.url}/models", timeout=10) as told:
        assert [model["id"] for model in json.load(told)["data"]] == ["task", "proposer"]


def test_every_call_can_be_logged(tmp_path):
    log = tmp_path / "calls.jsonl"
    with Endpoint(ScriptedSpeaker(), log=log).serve() as endpoint:
        ask(endpoint.url, "task", ASKED, tokens=5)
    assert json.loads(log.read_text()) == {"role": "task", "messages": ASKED, "answer": "negative", "tokens": [9, 1]}


def test_bare_text_is_the_messages_joined_for_the_task_model_and_a_chat_for_the_proposer():
    class Reader(ScriptedSpeaker):
        def __init__(self):
            super().__init__()
            self.read = []

        def answers(self, prompts, **settings):
            self.read += prompts
            return super().answers(prompts, **settings)

    messages = [{"role": "system", "content": "Be brief."}, *ASKED]
    with Endpoint(Reader(), frame="bare").serve() as endpoint:
        for role in ("task", "proposer"):
            ask(endpoint.url, role, messages, tokens=5, temperature=1.0)
    text = ASKED[0]["content"]
    assert endpoint.model.read == [f"Be brief.\n\n{text}", f"system: Be brief.\nuser: {text}"]


@pytest.mark.slow
def test_the_embedded_model_answers_as_our_own_task_model_does_in_its_chat_template():
    model, own = ChatModel("embedded"), HFTaskModel("embedded", chat=True, max_new_tokens=8)
    question = "Is water wet? Answer yes or no."
    turns = Conversation((Turn("user", "Is fire cold?"), Turn("assistant", "no"), Turn("user", question)))
    for prompt, messages in (
        (question, [{"role": "user", "content": question}]),
        (turns, [{"role": turn.role, "content": turn.text} for turn in turns.turns]),
    ):
        (written,) = model.answers([model.render(messages)], limit=8, temperature=0.0, seeds=[0])
        assert written.text == own.generate([prompt])[0]
    (bare,) = model.answers([rendered(model, messages, "bare")], limit=8, temperature=0.0, seeds=[0])
    alone = "\n\n".join(turn.text for turn in turns.turns)
    assert bare.text == HFTaskModel("embedded", max_new_tokens=8).generate([alone])[0]
    system = [{"role": "system", "content": "Speak French."}, {"role": "user", "content": question}]
    assert "Speak French." in model.render(system)
    prompt = model.render(system)
    first, again, other = (
        model.answers([prompt] * count, limit=12, temperature=1.0, seeds=seeds)[-1]
        for count, seeds in ((1, [5]), (2, [9, 5]), (1, [6]))
    )
    assert first == again and first != other and 0 < first.tokens <= 12
