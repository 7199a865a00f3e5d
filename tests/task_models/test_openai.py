"""The openai backend against a server with its parts switched on and off."""

import zlib

import numpy as np
import pytest

from prewrite.errors import CapabilityError, ConfigError, ModelNotFoundError, TaskModelError
from prewrite.task_models.checks import check_task_model
from prewrite.task_models.openai import OpenAITaskModel
from prewrite.task_models.retry import RetryPolicy
from prewrite.types import Conversation, Turn
from servers.http_server import HTTPServer
from servers.openai_server import EVERYTHING, OpenAIApp, answer_to, logprob

QUICK = RetryPolicy(attempts=3, first_delay=0.01)
CHAT_ONLY = frozenset({"chat", "json_schema", "top"})


@pytest.fixture
def opened(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    servers, models = [], []

    def open_model(app=None, model="toy", **options):
        servers.append(HTTPServer(app or OpenAIApp()).__enter__())
        options = {"address": f"{servers[-1].url}/v1", "retry": QUICK, "timeout": 20} | options
        models.append(OpenAITaskModel(model, **options))
        return models[-1]

    yield open_model
    for model in models:
        model.close()
    for server in servers:
        server.__exit__()


def test_a_server_that_scores_labels_is_asked_with_bare_prompts(opened):
    task_model = opened()
    assert task_model.chat is False
    assert task_model.capabilities == {"generate", "constrained", "label_logprobs", "target_logprobs"}
    prompts = [f"prompt {number}" for number in range(20)]
    assert task_model.generate(prompts) == [answer_to(prompt) for prompt in prompts]


def test_a_chat_server_is_asked_with_messages(opened):
    task_model = opened(OpenAIApp(can=CHAT_ONLY))
    assert task_model.chat is True and task_model.capabilities == {"generate", "constrained", "turns"}
    assert task_model.generate(["a", "b"]) == [answer_to("a").strip(), answer_to("b").strip()]
    labels = ("yes", "no")
    assert task_model.constrained(["a"], labels) == [labels[zlib.crc32(b"a") % 2]]


@pytest.mark.parametrize("labels", [("good", "bad"), ("very good", "bad")])
@pytest.mark.parametrize("lists", [True, False])
def test_label_scores_are_those_of_the_tokens_after_the_prompt(opened, labels, lists):
    # one-token labels go by `logprob_token_ids`, longer ones by the echo; the numbers are the same
    task_model = opened(OpenAIApp(can=EVERYTHING if lists else EVERYTHING - {"lists"}))
    prompts = ["Input: a film\nOutput:", "Input: a book\nOutput:", "x"]
    expected = [
        [
            sum(
                logprob(prompt + "".join(f" {w}" for w in label.split()[:at]), f" {word}")
                for at, word in enumerate(label.split())
            )
            for label in labels
        ]
        for prompt in prompts
    ]
    assert np.allclose(task_model.label_logprobs(prompts, labels), expected)


def test_in_chat_labels_are_scored_after_the_chat_template(opened):
    task_model = opened(chat=True)
    scores = task_model.label_logprobs(["a film"], ["good", "bad"])
    assert scores[0] == pytest.approx([logprob("<user>a film<assistant>", word) for word in ("good", "bad")])


TURNS = Conversation((Turn("user", "a film"), Turn("assistant", "good"), Turn("user", "a book")))
AS_SENT = [
    {"role": "user", "content": "a film"},
    {"role": "assistant", "content": "good"},
    {"role": "user", "content": "a book"},
]


@pytest.mark.parametrize("method", ["generate", "constrained", "label_logprobs"])
def test_a_conversation_is_sent_as_its_messages(opened, method):
    app = OpenAIApp(can=CHAT_ONLY)
    task_model = opened(app, label_scores=True)
    getattr(task_model, method)([TURNS], *([] if method == "generate" else [("positive", "negative")]))
    assert app.messages[-1] == AS_SENT


def test_labels_are_scored_after_a_whole_conversation(opened):
    app = OpenAIApp()
    scores = opened(app, chat=True).label_logprobs([TURNS], ["good", "bad"])[0]
    shown = "<user>a film<assistant>good<user>a book<assistant>"
    assert scores == pytest.approx([logprob(shown, word) for word in ("good", "bad")])
    assert app.messages[-1] == AS_SENT


def test_bare_a_conversation_is_refused(opened):
    app = OpenAIApp()
    task_model = opened(app)
    task_model.load()
    asked = len(app.asked)
    with pytest.raises(CapabilityError, match=r"cannot do 'turns' .*: prompts are sent bare; chat=true"):
        task_model.generate([TURNS])
    assert len(app.asked) == asked
    with pytest.raises(CapabilityError, match=r"'turns' .*: no /chat/completions: "):
        opened(OpenAIApp(can=frozenset({"completions"}))).generate([TURNS])


def test_a_target_is_scored_per_token(opened):
    mean = opened().target_logprobs(["2 + 2 ="], ["four, or 4"])[0]
    steps = [("2 + 2 =", " four,"), ("2 + 2 = four,", " or"), ("2 + 2 = four, or", " 4")]
    assert mean == pytest.approx(sum(logprob(*step) for step in steps) / 3)


def test_an_echo_that_is_off_by_one_token_is_found_out(opened):
    task_model = opened(OpenAIApp(can=frozenset({"completions", "echo"}), shifted=True))
    assert task_model.facts.echo is False
    with pytest.raises(CapabilityError, match="cannot do 'label_logprobs'"):
        task_model.label_logprobs(["a"], ["x", "y"])


def test_a_choice_that_the_server_ignores_is_not_offered(opened):
    assert "constrained" not in opened(OpenAIApp(can=frozenset({"completions", "chat"}))).capabilities


def test_top_logprobs_score_labels_in_chat_only_on_request(opened):
    task_model = opened(OpenAIApp(can=CHAT_ONLY), label_scores=True)
    scores = task_model.label_logprobs(["a"], ["positive", "negative"])[0]
    assert scores == pytest.approx([logprob("a", "positive"), logprob("a", " negative")])


def test_hosted_models_that_refuse_max_tokens_and_temperature_are_asked_their_way(opened):
    task_model = opened(OpenAIApp(can=CHAT_ONLY, hosted=True))
    assert task_model.generate(["a"]) == [answer_to("a").strip()]
    assert (task_model.facts.limit, task_model.facts.greedy) == ("max_completion_tokens", False)
    assert "dropped=temperature" in task_model.identity


def test_several_bare_prompts_share_a_request(opened):
    app = OpenAIApp()
    task_model = opened(app, prompts_per_request=8)
    task_model.load()
    before = len(app.asked)
    task_model.generate([f"p{number}" for number in range(20)])
    assert len(app.asked) - before == 20 and app.asked[before : before + 8] == [f"p{number}" for number in range(8)]


def test_a_missing_model_is_told_with_those_that_are_there(opened):
    with pytest.raises(ModelNotFoundError, match=r"model 'big' is not served at .*/v1 \(it has: toy\)"):
        opened(model="big").generate(["a"])


def test_a_wrong_path_is_told(opened):
    with HTTPServer(OpenAIApp()) as server:
        task_model = OpenAITaskModel("toy", address=server.url, retry=QUICK)
        with pytest.raises(TaskModelError, match="usually /v1"):
            task_model.generate(["a"])
        task_model.close()


def test_a_missing_or_wrong_key_is_told_and_never_shown(opened, monkeypatch):
    with pytest.raises(TaskModelError, match=r"HTTP 401.*Set OPENAI_API_KEY"):
        opened(OpenAIApp(key="right-key")).generate(["a"])
    monkeypatch.setenv("OPENAI_API_KEY", "right-key")
    task_model = opened(OpenAIApp(key="right-key"))
    assert task_model.generate(["a"]) == [answer_to("a")]
    assert "right-key" not in repr(vars(task_model)) + task_model.identity


def test_openai_itself_needs_a_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        OpenAITaskModel("gpt")


def test_doctor_shows_what_an_openai_server_can_do(opened):
    in_chat = {check.capability: check for check in check_task_model(opened(OpenAIApp(can=CHAT_ONLY)))}
    assert in_chat["turns"].ok and in_chat["constrained"].ok
    missing = [check for check in check_task_model(opened()) if not check.ok]
    assert [(check.capability, check.detail) for check in missing] == [
        ("turns", "not offered: prompts are sent bare; chat=true puts them in the model's chat template")
    ]
