"""The vllm backend without vLLM: what it asks for and what it reads, against a stand-in that records and counts."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from prewrite.errors import ConfigError, MissingDependencyError, NoAnswerError
from prewrite.task_models.vllm import VLLMTaskModel
from prewrite.types import Conversation, Turn


class SamplingParams:
    """vLLM's keywords that are used here; others are an error, as in vLLM."""

    __struct_fields__ = (
        "temperature",
        "max_tokens",
        "logprobs",
        "prompt_logprobs",
        "structured_outputs",
        "logprob_token_ids",
    )

    def __init__(self, **fields):
        assert set(fields) <= set(self.__struct_fields__)
        self.__dict__ |= dict.fromkeys(self.__struct_fields__) | fields
        if self.logprob_token_ids is not None:  # as vLLM 0.32 wants it
            assert self.logprobs in (None, len(self.logprob_token_ids))


class Tokenizer:
    """A token per character, in a chat too."""

    chat_template = "a template"

    def apply_chat_template(self, messages, tokenize, add_generation_prompt, enable_thinking):
        return "".join(f"<{message['content']}>" for message in messages)

    def __call__(self, text, add_special_tokens=True):
        if isinstance(text, list):
            return {"input_ids": [self(one, add_special_tokens)["input_ids"] for one in text]}
        return {"input_ids": [*([1] if add_special_tokens else []), *map(ord, text)]}


class LLM:
    """Gives token t log-probability -t / 100, and writes the last character of the prompt."""

    def __init__(self, **fields):
        self.fields, self.asked = fields, []
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=fields["max_model_len"] or 99))

    def get_tokenizer(self):
        return Tokenizer()

    def generate(self, requests, parameters, use_tqdm):
        self.asked.append((requests, parameters))
        return [self._answer(request["prompt_token_ids"], parameters) for request in requests]

    def _answer(self, ids, parameters):
        def told(tokens):
            return {token: SimpleNamespace(logprob=-token / 100) for token in tokens}

        text = parameters.structured_outputs.choice[-1] if parameters.structured_outputs else chr(ids[-1])
        first = told(parameters.logprob_token_ids or [])
        return SimpleNamespace(
            outputs=[SimpleNamespace(text=text, logprobs=[first])],
            prompt_logprobs=[None, *(told([token]) for token in ids[1:])],
        )


@pytest.fixture
def model(monkeypatch, tmp_path):
    """A folder that stands for a model, and vLLM's stand-in."""
    vllm = ModuleType("vllm")
    vllm.LLM, vllm.SamplingParams, vllm.__version__ = LLM, SamplingParams, "0.32.0"
    vllm.sampling_params = SimpleNamespace(StructuredOutputsParams=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    (tmp_path / "config.json").write_text("{}")
    return str(tmp_path)


@pytest.fixture
def task_model(model):
    return VLLMTaskModel(model, max_new_tokens=7)


def test_text_is_greedy_and_the_prefix_cache_is_on(task_model):
    assert task_model.generate(["ab", "cd"]) == ["b", "d"]
    requests, parameters = task_model.llm.asked[0]
    assert requests[0] == {"prompt_token_ids": [1, ord("a"), ord("b")]}
    assert (parameters.temperature, parameters.max_tokens) == (0, 7)
    assert task_model.llm.fields["enable_prefix_caching"] is True


def test_labels_of_several_tokens_are_summed_over_their_own_tokens(task_model):
    scores = task_model.label_logprobs(["p"], ["a", "bc"])
    assert scores[0] == pytest.approx([-(32 + 97) / 100, -(32 + 98 + 99) / 100])  # a label follows a space, 32


def test_labels_of_one_token_take_one_step(model):
    task_model = VLLMTaskModel(model, chat=True)  # in a chat a label follows no space
    assert task_model.label_logprobs(["p", "q"], ["a", "b"])[1] == pytest.approx([-0.97, -0.98])
    ((requests, parameters),) = task_model.llm.asked
    assert len(requests) == 2 and parameters.logprob_token_ids == [97, 98]


def test_a_conversation_goes_through_the_chat_template(model):
    task_model = VLLMTaskModel(model, chat=True)
    turns = Conversation((Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")))
    assert task_model.generate([turns]) == [">"]
    assert task_model.llm.asked[0][0] == [{"prompt_token_ids": [ord(c) for c in "<a><b><c>"]}]
    assert "turns" in task_model.capabilities and "turns" not in VLLMTaskModel(model).capabilities


def test_a_target_is_averaged(task_model):
    assert task_model.target_logprobs(["p"], ["ab"]) == pytest.approx([-(32 + 97 + 98) / 300])


def test_a_choice_is_among_the_labels(task_model):
    assert task_model.constrained(["p"], ["no", "yes"]) == ["yes"]
    assert task_model.llm.asked[0][1].structured_outputs.choice == [" no", " yes"]


def test_without_vllm_the_pip_line_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'prewrite\[vllm\]'"):
        VLLMTaskModel("m")


def test_a_prompt_that_is_longer_than_the_context_is_named_before_vllm_is_asked(model):
    task_model = VLLMTaskModel(model, max_new_tokens=7, max_model_len=20)
    assert task_model.generate(["a" * 12]) == ["a"]  # and the token that starts a text
    ask = [
        (lambda prompts: task_model.generate(prompts), "14 tokens and 7 for the answer"),
        (lambda prompts: task_model.label_logprobs(prompts, ["it fits", "b"]), "14 tokens and 9 for the answer"),
        (lambda prompts: task_model.target_logprobs(prompts, ["b", "it fits"]), "14 tokens and 9 for the answer"),
        (lambda prompts: task_model.constrained(prompts, ["a", "b"]), "2 tokens and 35 for the answer"),
    ]
    asked = len(task_model.llm.asked)
    for method, told in ask:
        with pytest.raises(NoAnswerError, match=f"{told} are more than the 20 ") as caught:
            method(["a", "b" * 13])
        assert f"prompt {caught.value.row + 1} of 2" in str(caught.value)
    assert len(task_model.llm.asked) == asked


def test_the_identity_follows_the_files(model, task_model):
    with open(f"{model}/config.json", "w") as file:
        file.write('{"rope_theta": 1}')
    assert VLLMTaskModel(model, max_new_tokens=7).identity != task_model.identity


def test_a_chat_template_that_writes_the_date_makes_another_identity_every_day(model, monkeypatch):
    first, again = (VLLMTaskModel(model, chat=True).identity for _ in range(2))
    assert first == again
    monkeypatch.setattr(Tokenizer, "apply_chat_template", lambda *_, **__: "<Today is the 27th.>")
    assert VLLMTaskModel(model, chat=True).identity != first


def test_chat_without_a_template_is_refused(model, monkeypatch):
    monkeypatch.setattr(Tokenizer, "chat_template", None)
    with pytest.raises(ConfigError, match="no chat template"):
        VLLMTaskModel(model, chat=True)
