"""Real vLLM, as a server and in a process, with the same weights as hf. Own script and marker:

python tests/servers/vllm_server.py install .venv-vllm
PREWRITE_VLLM_VENV=.venv-vllm python -m pytest -m server
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from prewrite.task_models.checks import check_task_model
from prewrite.task_models.openai import OpenAITaskModel
from servers import vllm_server
from servers.real_server import free_port
from servers.vllm_server import MODEL_NAME, environment

pytestmark = [pytest.mark.server, pytest.mark.timeout(900)]
INSTRUCTION = "Is the sentiment of this film review positive or negative?"
SUBJECTS = ("The plot", "The music", "The lead actor", "The ending", "The whole film", "The dialogue")
VERDICTS = ("is a delight", "bored me", "is better than expected", "makes no sense", "moved me to tears", "is a mess")
PROMPTS = [f"{INSTRUCTION}\n\nInput: {subject} {verdict}.\nOutput:" for subject in SUBJECTS for verdict in VERDICTS]


@pytest.fixture(scope="module")
def venv():
    folder = os.environ.get("PREWRITE_VLLM_VENV")
    if not folder:
        pytest.skip("set PREWRITE_VLLM_VENV to a folder made by `python tests/servers/vllm_server.py install`")
    return Path(folder)


@pytest.fixture(scope="module")
def address(venv, tmp_path_factory):
    from prewrite.lm.embedded import resolve_model

    log = tmp_path_factory.mktemp("vllm") / "server.log"
    with vllm_server.server(venv, resolve_model("embedded"), free_port(), log) as server:
        yield server.address


@pytest.fixture(scope="module")
def hf():
    from prewrite.task_models.hf import HFTaskModel

    return HFTaskModel("embedded", dtype="float32")


@pytest.fixture
def opened(address):
    models = []

    def open_model(**options):
        models.append(OpenAITaskModel(MODEL_NAME, address=address, **options))
        return models[-1]

    yield open_model
    for model in models:
        model.close()


def test_vllm_offers_everything_and_each_part_works(opened):
    task_model = opened()
    assert task_model.facts.token_ids and task_model.facts.echo and task_model.facts.lists and task_model.facts.choice
    checks = check_task_model(task_model)
    assert [check.capability for check in checks if not check.ok] == ["turns"], checks  # prompts are sent bare


@pytest.mark.parametrize("labels", [("positive", "negative"), ("very positive indeed", "rather negative")])
def test_label_scores_agree_with_hf_in_fp32(opened, hf, labels):
    scores, right = opened().label_logprobs(PROMPTS, labels), hf.label_logprobs(PROMPTS, labels)
    assert np.abs(scores - right).max() < 0.5
    clear = np.abs(right[:, 0] - right[:, 1]) >= 0.25
    assert clear.sum() > len(PROMPTS) / 3
    assert (scores.argmax(1) == right.argmax(1))[clear].all()


def test_in_chat_label_scores_agree_with_hf_in_chat(opened):
    from prewrite.task_models.hf import HFTaskModel

    labels = ("positive", "negative")
    right = HFTaskModel("embedded", dtype="float32", chat=True).label_logprobs(PROMPTS, labels)
    scores = opened(chat=True).label_logprobs(PROMPTS, labels)
    clear = np.abs(right[:, 0] - right[:, 1]) >= 0.25
    assert (scores.argmax(1) == right.argmax(1))[clear].all()


def test_targets_agree_with_hf(opened, hf):
    targets = ["a good film"] * len(PROMPTS)
    assert np.allclose(opened().target_logprobs(PROMPTS, targets), hf.target_logprobs(PROMPTS, targets), atol=0.3)


def test_vllm_in_a_process_answers_as_hf_does(venv, hf, tmp_path):
    from prewrite.lm.embedded import resolve_model

    prompts, labels = PROMPTS[:12], [["positive", "negative"], ["very positive indeed", "rather negative"]]
    targets = ["a good film"] * len(prompts)
    questions, found = tmp_path / "questions.json", tmp_path / "answers.json"
    questions.write_text(json.dumps({"prompts": prompts, "labels": labels, "targets": targets}))
    script = Path(__file__).parents[1] / "servers" / "vllm_in_process.py"
    source = {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    subprocess.run(
        [venv / "bin" / "python", script, resolve_model("embedded"), questions, found],
        check=True, env=environment() | source,
    )  # fmt: skip
    answers = json.loads(found.read_text())
    for scores, some in zip(answers["label_logprobs"], labels, strict=True):
        assert np.allclose(scores, hf.label_logprobs(prompts, some), atol=0.01)
    assert np.allclose(answers["target_logprobs"], hf.target_logprobs(prompts, targets), atol=0.01)
    assert set(answers["constrained"]) <= set(labels[0])
    written = hf.generate(prompts)
    assert all(right.startswith(text) for text, right in zip(answers["generate"], written, strict=True))
    assert answers["longest"] == 1
    assert "prompt 13 of 13, 'a a a a" in answers["too long"]
    assert "its 1,017 tokens and 8 for the answer are more than the 1,024" in answers["too long"]
