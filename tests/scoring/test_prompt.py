"""A task prompt is put together in one way, and comes back from its file as it was."""

import json
from dataclasses import replace

import pytest

from prewrite.errors import CapabilityError, ConfigError
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.prompt import Exemplar, TaskPrompt, load_prompt
from prewrite.task_models.scripted import ScriptedTaskModel
from prewrite.types import RewriteExample, turns_of

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


IN_TURNS = replace(WHOLE, layout="turns", label_offsets=None)


def test_in_turns_each_exemplar_is_a_question_of_the_user_and_the_assistants_answer():
    assert IN_TURNS.messages("Hi {instruction}") == [
        {
            "role": "user",
            "content": "Is it spam? Answer with one of: spam, ham.\n\nInput: You won {input}!\nOutput:",
        },
        {"role": "assistant", "content": "spam"},
        {"role": "user", "content": "Input: See you at six\nOutput:"},
        {"role": "assistant", "content": "ham"},
        {"role": "user", "content": "Input: Hi {instruction}\nOutput:"},
    ]
    assert IN_TURNS.render("Hi") == (
        "User: Is it spam? Answer with one of: spam, ham.\n\nInput: You won {input}!\nOutput:\n\n"
        "Assistant: spam\n\nUser: Input: See you at six\nOutput:\n\nAssistant: ham\n\nUser: Input: Hi\nOutput:"
    )


def test_in_turns_a_template_that_begins_with_the_input_states_the_instruction_once():
    prompt = replace(IN_TURNS, template="Input: {input}\n\nInstruction: {instruction}\nOutput:", answer_line="")
    contents = [message["content"] for message in prompt.messages("Hi")]
    assert contents[0] == "Input: You won {input}!\n\nInstruction: Is it spam?\nOutput:"
    assert contents[1:] == ["spam", "Input: See you at six\nOutput:", "ham", "Input: Hi\nOutput:"]


@pytest.mark.parametrize(
    "prompt",
    [WHOLE, replace(WHOLE, layout="exemplars_first"), replace(IN_TURNS, exemplars=())],
    ids=["instruction first", "exemplars first", "turns without exemplars"],
)
def test_as_messages_a_text_is_one_of_the_user(prompt):
    assert prompt.messages("Hi") == [{"role": "user", "content": prompt.render("Hi")}]
    assert prompt.sent("Hi") == prompt.render("Hi")


@pytest.mark.parametrize("whole", [WHOLE, IN_TURNS], ids=["text", "turns"])
def test_a_prompt_comes_back_from_its_file(tmp_path, whole):
    whole.save(tmp_path / "prompt.json")
    assert load_prompt(tmp_path / "prompt.json") == load_prompt(tmp_path) == whole


def test_label_offsets_are_kept_by_label(tmp_path):
    WHOLE.save(tmp_path / "prompt.json")
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


class Chatting(ScriptedTaskModel):
    """Says how many turns it was sent."""

    capabilities = frozenset({"generate", "turns"})

    def __init__(self):
        super().__init__(lambda prompt: "1 turn")

    def generate(self, prompts):
        return [f"{len(turns_of(prompt))} turns" for prompt in prompts]


def test_a_prompt_in_turns_is_sent_as_a_conversation_and_shown_as_text():
    evaluator = Evaluator(Chatting(), decoding="generate")
    (text,), (turns,) = evaluator.answers([replace(WHOLE, label_offsets=None), IN_TURNS], [ROW])
    assert (text.output, turns.output) == ("1 turns", "5 turns")
    assert turns.prompt == IN_TURNS.render("Hi") == evaluator.prompt(IN_TURNS, ROW)


def test_a_model_that_does_not_chat_is_not_asked_in_turns():
    asked = []
    model = ScriptedTaskModel(lambda prompt: asked.append(prompt) or "ham")
    model.capabilities |= {"target_logprobs"}
    evaluator = Evaluator(model, decoding="generate")
    words = "layout is 'turns'; scripted cannot do 'turns' .*layouts instruction_first, exemplars_first"
    with pytest.raises(CapabilityError, match=words):
        evaluator.answers([WHOLE.instruction, IN_TURNS], [ROW])
    with pytest.raises(CapabilityError, match=words):
        evaluator.target_logprobs([WHOLE.instruction, IN_TURNS], [ROW])
    assert asked == [] and evaluator.layouts == ("instruction_first", "exemplars_first")
    assert evaluator.score([replace(IN_TURNS, exemplars=())], [ROW]).tolist() == [[1.0]]


def test_a_wording_is_scored_among_the_other_parts_of_the_prompt():
    seen = []
    model = ScriptedTaskModel(lambda prompt: seen.append(prompt) or "ham")
    Evaluator(model, around=WHOLE, decoding="generate").prompt("Spam or ham?", ROW)
    evaluator = Evaluator(model, around=replace(WHOLE, label_offsets=None), decoding="generate")
    assert evaluator.score(["Spam or ham?", " "], [ROW]).tolist() == [[1.0], [0.0]]
    assert seen == [WHOLE.with_instruction("Spam or ham?").render("Hi")]
