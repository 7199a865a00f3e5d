import pytest

from prewrite.errors import ConfigError
from prewrite.rewriter.meta_prompts import META_PROMPTS, build_meta_prompt, extract_rewrite, format_rewriter_query


def test_generic_has_the_form_of_the_papers_equation_one():
    meta_prompt = build_meta_prompt("Answer the question")
    assert meta_prompt.startswith(
        "Rewrite the following instruction via rephrasing and/or adding specific requirements."
    )
    assert meta_prompt.endswith("Output the new instruction only.\nInstruction: Answer the question")


@pytest.mark.parametrize("family", META_PROMPTS)
def test_every_family_holds_the_instruction_once_and_no_slot_is_left(family):
    meta_prompt = build_meta_prompt("Sort {x} by {instruction}.", family)
    assert meta_prompt.count("Sort {x} by {instruction}.") == 1
    assert meta_prompt.replace("Sort {x} by {instruction}.", "").count("{") == 0


def test_a_users_text_and_a_users_file_take_the_place_of_a_family(tmp_path):
    assert build_meta_prompt("Add.", template="Better: {instruction} {x}") == "Better: Add. {x}"
    file = tmp_path / "mine.txt"
    file.write_text("\ufeffImprove this.\nInstruction: {instruction}\n", encoding="utf-8")
    assert build_meta_prompt("Add.", str(file)) == "Improve this.\nInstruction: Add."


def test_an_unknown_family_is_refused_with_the_known_names():
    with pytest.raises(ConfigError, match=r"'generik' is unknown.*generic, reasoning, few_shot"):
        build_meta_prompt("Add.", "generik")


def test_a_meta_prompt_without_a_slot_is_refused(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("Improve this.")
    with pytest.raises(ConfigError, match=r"mine.txt.*no \{instruction\} slot"):
        build_meta_prompt("Add.", str(file))
    with pytest.raises(ConfigError, match=r"no slot \{instruction\}"):
        build_meta_prompt("Add.", template="Improve this.")
    file.write_bytes(b"\xff\xfe\xff{instruction}")
    with pytest.raises(ConfigError, match="UTF-8"):
        build_meta_prompt("Add.", str(file))


class ChatTokenizer:
    chat_template = "{{ messages }}"

    def apply_chat_template(self, messages, *, tokenize, add_generation_prompt, **kwargs):
        assert not tokenize and add_generation_prompt
        return "".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant>"


class PlainTokenizer:
    chat_template = None


def test_a_chat_tokenizer_gets_one_user_message_and_the_assistants_turn():
    assert format_rewriter_query("Rewrite: x", ChatTokenizer()) == "<user>Rewrite: x<assistant>"


def test_plain_text_ends_in_one_cue():
    generic, few_shot = build_meta_prompt("Add."), build_meta_prompt("Add.", "few_shot")
    for tokenizer in (None, PlainTokenizer()):
        assert format_rewriter_query(generic, tokenizer) == generic + "\nNew instruction:"
        assert format_rewriter_query(few_shot, tokenizer) == few_shot


BARE = "Classify the review as positive or negative."


@pytest.mark.parametrize(
    "completion",
    [
        BARE,
        f" {BARE}\n",
        f'"{BARE}"',
        f"“{BARE}”",
        f"'{BARE}'",
        f"«{BARE}»",
        f"`{BARE}`",
        f'"{BARE}',
        f"New instruction: {BARE}",
        f"New Instruction:\n\n{BARE}",
        f"**New Instruction:** {BARE}",
        f"### Rewritten Instruction\n{BARE}",
        f"The rewritten instruction is: {BARE}",
        f"Instruction: {BARE}",
        f'Rewritten instruction: "{BARE}"',
        f"Sure! Here is the rewritten instruction:\n\n{BARE}",
        f"Sure, here's a new version of the instruction:\n\n> {BARE}",
        f"Certainly! {BARE}",
        f"Here is a rewritten version: {BARE}",
        f"I have rewritten the instruction as follows:\n{BARE}",
        f"**{BARE}**",
        f"# {BARE}",
        f"```\n{BARE}\n```",
        f"```text\n{BARE}\n```\nI made it clearer.",
        f"Sure! Here is the new instruction:\n```\n{BARE}\n```",
        f"{BARE}<|im_end|>\n<|im_start|>user\nmore",
        f"<|im_start|>assistant\n{BARE}<|im_end|>",
        f"{BARE}</s>",
        f"<think>\nThey want {{x}}: hm.\n</think>\n\n{BARE}",
        f"{BARE}\n\nInstruction: Name the river.\nNew instruction: Name it.",
        f"{BARE}\n\nExplanation: it is clearer now.",
        f"{BARE}\n\nThis new instruction is clearer.",
        f'"{BARE}"\n\nI made the wording clearer.',
        f"{BARE}\r\n",
    ],
)
def test_the_rewrite_is_found_in_what_surrounds_it(completion):
    assert extract_rewrite(completion) == BARE


@pytest.mark.parametrize(
    "rewrite",
    [
        '"positive" or "negative"?',
        '"positive" or "negative"',
        'Answer with "positive" or "negative"',
        "'good' or 'bad'",
        "Read the review.\n\nThen answer:\n- positive\n- negative",
        "Here is a review: decide if it is good.",
        "Output the sum of both numbers.",
        "Instruct the reader: positive or negative?",
        "Rewrite the sentence in passive form",
        "*Read* the text and *classify* it",
        "Is x < y and y > z?",
        "This is a task: say which label fits.",
        "Classify {input} as {label}.",
        "Sure or unsure? Decide how sure the writer is.",
    ],
)
def test_what_belongs_to_the_rewrite_stays(rewrite):
    assert extract_rewrite(rewrite) == rewrite


def test_quotes_around_a_text_with_quotes_are_removed():
    assert extract_rewrite('"Say "yes" or "no""') == 'Say "yes" or "no"'
    assert extract_rewrite("'Don't guess, say 'yes' or 'no'.'") == "Don't guess, say 'yes' or 'no'."


@pytest.mark.parametrize(
    "completion", ["", " \n", '""', "New instruction:", "```\n```", "<|im_end|>", "---", "<think> so", "**"]
)
def test_a_completion_without_a_rewrite_gives_an_empty_one(completion):
    assert extract_rewrite(completion) == ""


def test_many_empty_lines_become_one():
    assert extract_rewrite("Read it.   \n\n\n\n\nSort it.") == "Read it.\n\nSort it."


def test_extracting_twice_changes_nothing():
    for text in [
        f'Sure! "**New instruction:** {BARE}"',
        '"""x"""',
        "# # # a",
        "> > b",
        '"a" "b"',
        "**a** b **c**",
        "'''",
    ]:
        once = extract_rewrite(text)
        assert extract_rewrite(once) == once
