"""The openvino backend, where it is installed: its answers are those of hf."""

import numpy as np
import pytest

from prewrite.errors import NoAnswerError
from prewrite.lm.embedded import find_gguf
from prewrite.types import Conversation, Turn


@pytest.fixture(scope="module")
def exact():
    """(openvino, hf): the embedded model on both, in fp32, with a given setting of chat."""
    pytest.importorskip("openvino_genai")
    pytest.importorskip("torch")
    if find_gguf() is None:
        pytest.skip("the embedded model is not installed")
    from prewrite.task_models.hf import HFTaskModel
    from prewrite.task_models.openvino import OpenVINOTaskModel

    def load(chat):
        settings = {"chat": chat, "max_new_tokens": 12}
        return OpenVINOTaskModel(precision="f32", **settings), HFTaskModel(dtype="float32", **settings)

    return load


@pytest.mark.slow
@pytest.mark.parametrize("chat", [False, True])
def test_answers_are_those_of_hf_and_do_not_depend_on_company_in_f32(exact, chat):
    prompts = [
        f"Is it positive or negative?\n\nInput: a {word} film\nOutput:" for word in ("good", "bad", "rather dull")
    ]
    if chat:
        exemplar = (
            Turn("user", "Is it positive or negative?\n\nInput: a fine film\nOutput:"),
            Turn("assistant", "positive"),
        )
        prompts[1:] = [Conversation((*exemplar, Turn("user", f"Input: a {word} film"))) for word in ("bad", "dull")]
    labels, targets = ("positive", "negative", "not so bad"), ("positive", "rather bad", "x")
    vino, hf = exact(chat)
    scores = vino.label_logprobs(prompts, labels)
    assert np.allclose(scores, hf.label_logprobs(prompts, labels), atol=0.05)
    assert np.allclose(vino.target_logprobs(prompts, targets), hf.target_logprobs(prompts, targets), atol=0.05)
    assert np.allclose(vino.label_logprobs(prompts[:1], labels), scores[:1], atol=1e-3)
    assert vino.generate(["The capital of France is"]) == hf.generate(["The capital of France is"])
    assert vino.prompt_tokens(prompts) == hf.prompt_tokens(prompts)
    assert vino.text_tokens(labels) == hf.text_tokens(labels)


@pytest.mark.slow
def test_a_prompt_that_is_longer_than_the_context_is_an_error(exact):
    vino, _ = exact(False)
    with pytest.raises(NoAnswerError, match=r"prompt 2 of 2, 'a a a.*8,\d\d\d tokens and .* more than the 8,192 that"):
        vino.label_logprobs(["short", "a " * 8200], ("positive", "negative"))
