"""The openai backend against the real server of llama-cpp-python, with the embedded model. Own script and marker:

python tests/servers/llama_cpp_server.py install .venv-llama
PREWRITE_LLAMA_VENV=.venv-llama python -m pytest -m server
"""

import json
import os
from pathlib import Path

import pytest

from prewrite.cli.main import main
from prewrite.errors import NoAnswerError
from prewrite.task_models.openai import OpenAITaskModel
from prewrite.task_models.stream import Batch, NoAnswer
from servers.llama_cpp_server import CONTEXT, MODEL_NAME, server
from servers.real_server import free_port

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]
LABELS = ("positive", "negative")
PROMPTS = [f"Is this film review positive or negative?\n\nInput: {text}\nOutput:" for text in (
    "A delight from start to end.", "It bored me to tears.", "A mess.", "Funny, warm and wise.",
)]  # fmt: skip
LONG = "It was a long and winding film about rivers. " * (CONTEXT // 8)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = os.environ.get("PREWRITE_LLAMA_VENV")
    if not folder:
        pytest.skip("set PREWRITE_LLAMA_VENV to a folder made by `python tests/servers/llama_cpp_server.py install`")
    with server(Path(folder), free_port(), tmp_path_factory.mktemp("llama") / "server.log") as running:
        yield running.address


@pytest.fixture
def opened(address, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    models = []

    def open_model(**options):
        models.append(OpenAITaskModel(MODEL_NAME, address=address, **options))
        return models[-1]

    yield open_model
    for model in models:
        model.close()


def test_what_it_can_do_is_found_out_and_what_not_has_its_reason(opened):
    model = opened()
    assert model.chat and model.capabilities == {"generate", "constrained", "turns"}
    assert model.facts.schema == "json_object"  # it knows no json_schema
    assert "shifted by one token" in model.why_not("target_logprobs")
    assert "HTTP 500" in model.facts.why_not["lists"]
    assert model.notes[0].startswith("the server tells nothing of its model but the name")


def test_its_answers_are_labels_or_text(opened):
    model = opened(max_new_tokens=8)
    assert set(model.constrained(PROMPTS, LABELS)) <= set(LABELS)
    assert all(text.strip() for text in model.generate(PROMPTS))
    assert model.generate(PROMPTS) == model.generate(PROMPTS)


def test_labels_are_read_from_its_twenty_likeliest_tokens(opened):
    model = opened(label_scores=True)
    assert model.facts.top_logprobs == 20
    scores = model.label_logprobs([f"{prompt} One word:" for prompt in PROMPTS], ("Positive", "Negative"))
    assert scores.shape == (4, 2) and (scores < 0).all()


def test_its_tokens_are_counted(opened):
    ((_, reply),) = opened(max_new_tokens=4).stream(Batch("generate", (PROMPTS[0],)))
    assert reply.input_tokens > 20 and 0 < reply.output_tokens <= 4


def test_a_prompt_beyond_its_context_has_no_answer_and_the_others_have(opened):
    replies = dict(opened(max_new_tokens=4).stream(Batch("generate", (PROMPTS[0], LONG, PROMPTS[1]))))
    assert [isinstance(replies[row].value, NoAnswer) for row in range(3)] == [False, True, False]
    assert f"This model's maximum context length is {CONTEXT} tokens" in replies[1].value.reason
    assert replies[1].value.reason.endswith("raise the server's context length")
    with pytest.raises(NoAnswerError, match=r"gave no answer to prompt 2 of 2"):
        opened(max_new_tokens=4).generate([PROMPTS[0], LONG])


def test_eval_runs_on_it_from_the_command_line(address, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    texts = ["A delight.", "A bore.", "Warm and wise.", LONG]
    for name in ("train", "dev", "test"):
        golds = zip(texts, LABELS * 2, strict=True)
        rows = [{"input": f"{text} ({name})", "output": gold, "choices": LABELS} for text, gold in golds]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--data", str(tmp_path), "--instruction", "Is it positive or negative?", "--with", "Judge the film."]
    command = ["eval", *flags, "--task-model", f"openai:{MODEL_NAME}@{address}", "--json"]
    assert main(command) == 2
    assert "test.jsonl, row 4): the server refused it: HTTP 400" in capsys.readouterr().err
    assert main([*command, "--skip-refused-rows", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 3 and len(found["left_out"]) == 1
