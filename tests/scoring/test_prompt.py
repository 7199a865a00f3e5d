"""A task prompt is put together in one way, and comes back from its file as it was."""

import json
from dataclasses import replace

import pytest

from prewrite.errors import CapabilityError, ConfigError
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.prompt import Exemplar, TaskPrompt, load_prompt
from prewrite.task_models.scripted import ScriptedTaskModel
from prewrite.types import RewriteExample

WHOLE = TaskPrompt(
    "Is it spam?",
    answer_line="Answer with one of: spam, ham.",
    exemplars=(Exemplar("You won {input}!", "spam"), Exemplar("See you at six", "ham")),
    label_offsets=(("spam", 0.5), ("ham", -0.5)),
)


def test_exemplars_follow_the_instruction_and_are_shown_as_the_input_is():
    assert WHOLE.render("Hi {instruction}") == (
        "Is it spam? Answer with one of: spam, ham.\n\n"
        "Input: You won {input}!\nOutput: spam\n\n"
        "Input: See you at six\nOutput: ham\n\n"
        "Input: Hi {instruction}\nOutput:"
    )


def test_exemplars_first_puts_them_before_everything():
    text = replace(WHOLE, layout="exemplars_first", template="{instruction}\nText: {input}").render("Hi")
    assert text == (
        "Text: You won {input}!\nspam\n\nText: See you at six\nham\n\n"
        "Is it spam? Answer with one of: spam, ham.\nText: Hi"
    )


def test_where_the_template_begins_with_the_input_exemplars_stand_ahead_of_it():
    prompt = replace(WHOLE, template="Input: {input}\n\nInstruction: {instruction}\nOutput:", answer_line="")
    assert prompt.render("Hi").endswith("Output: ham\n\nInput: Hi\n\nInstruction: Is it spam?\nOutput:")


def test_a_bare_instruction_is_a_prompt_without_the_rest():
    assert TaskPrompt("Is it spam?").render("Hi") == "Is it spam?\n\nInput: Hi\nOutput:"


def test_a_template_goes_by_its_name_too():
    prompt = TaskPrompt("Which topic?", template="agnews")
    assert prompt.render("Rain") == "Which topic?\nArticle: Rain"
    assert prompt == TaskPrompt("Which topic?", template="{instruction}\nArticle: {input}")
    assert Evaluator(scorer(0.0), template="agnews").prompt("Which topic?", ROW) == "Which topic?\nArticle: Hi"


def test_a_prompt_comes_back_from_its_file(tmp_path):
    WHOLE.save(tmp_path / "prompt.json")
    assert load_prompt(tmp_path / "prompt.json") == load_prompt(tmp_path) == WHOLE
    assert json.loads((tmp_path / "prompt.json").read_text())["label_offsets"] == {"spam": 0.5, "ham": -0.5}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prewrite_prompt": 2}, "no prompt of version 1: its prewrite_prompt is 2"),
        ({"instruction": " "}, "instruction is empty or missing"),
        ({"instruction": 3}, "instruction is 3; it must be text"),
        ({"layuot": "x"}, "unknown field 'layuot'"),
        ({"layout": "middle"}, "layout 'middle' is unknown"),
        ({"template": "{instruction}"}, r"no slot \{input\}"),
        ({"decoding": "guess"}, "decoding 'guess' is unknown"),
        ({"exemplars": [{"input": "a"}]}, r"exemplar 1 is \{'input': 'a'\}"),
        ({"exemplars": "a"}, "exemplars is 'a'; it must be a list"),
        ({"label_offsets": {"spam": "high"}}, "the offset of label 'spam' is 'high'"),
        ({"label_offsets": {"spam": True}}, "the offset of label 'spam' is True"),
        ({"label_offsets": []}, "label_offsets is \\[\\]"),
    ],
)
def test_a_broken_prompt_file_is_one_clear_error(tmp_path, change, words):
    (tmp_path / "prompt.json").write_text(json.dumps(WHOLE.to_json() | change))
    with pytest.raises(ConfigError, match=words):
        load_prompt(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"), [(b"{", "is not JSON"), (b"[]", "holds a list"), (b"\xff", "is not JSON")]
)
def test_a_file_that_is_no_json_object_is_said_to_be_none(tmp_path, content, words):
    (tmp_path / "prompt.json").write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        load_prompt(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_prompt(tmp_path / "missing.json")


def scorer(*logprobs):
    return ScriptedTaskModel(lambda prompt: "spam", label_scores=lambda prompt, labels: logprobs)


ROW = RewriteExample("Is it spam?", "Hi", "ham", "classification", choices=("spam", "ham"))


def test_label_offsets_come_off_before_the_highest_label_is_taken():
    # spam -1 - 0.5 = -1.5 < ham -1.8 + 0.5 = -1.3; without offsets spam is the higher one
    evaluator = Evaluator(scorer(-1.0, -1.8))
    assert evaluator.score([WHOLE, replace(WHOLE, label_offsets=None)], [ROW]).tolist() == [[1.0], [0.0]]
    assert evaluator.answers([WHOLE], [ROW])[0][0].label_logprobs == (-1.0, -1.8)


def test_offsets_that_cannot_be_applied_are_refused():
    with pytest.raises(CapabilityError, match="label offsets, which need label log-probabilities"):
        Evaluator(scorer(-1.0, -1.8), decoding="generate").score([WHOLE], [ROW])
    with pytest.raises(ConfigError, match="no offset for the label 'other'"):
        Evaluator(scorer(-1.0, -1.8, -2.0)).score([WHOLE], [replace(ROW, choices=("spam", "ham", "other"))])


def test_a_wording_is_scored_among_the_other_parts_of_the_prompt():
    seen = []
    model = ScriptedTaskModel(lambda prompt: seen.append(prompt) or "ham")
    Evaluator(model, around=WHOLE, decoding="generate").prompt("Spam or ham?", ROW)
    evaluator = Evaluator(model, around=replace(WHOLE, label_offsets=None), decoding="generate")
    assert evaluator.score(["Spam or ham?", " "], [ROW]).tolist() == [[1.0], [0.0]]
    assert seen == [WHOLE.with_instruction("Spam or ham?").render("Hi")]
