"""Prompts and answers become tokens by one rule, whoever asks."""

from types import SimpleNamespace

import pytest
from toy import toy_model

from prewrite.errors import CapabilityError
from prewrite.lm.tokens import chat_text, continuation, continuation_ids, end_ids, has_chat_template, prompt_ids
from prewrite.types import Conversation, Turn


class Characters:
    """A tokenizer with a token per character, `^` where a text starts, and a chat template that can think."""

    bos_token_id, pad_token_id = ord("^"), ord("_")
    chat_template = "a template"

    def __call__(self, text, add_special_tokens=True):
        texts = [text] if isinstance(text, str) else text
        rows = [[ord(c) for c in ("^" if add_special_tokens else "") + one] for one in texts]
        return {"input_ids": rows[0] if isinstance(text, str) else rows}

    def apply_chat_template(self, messages, *, tokenize, add_generation_prompt, enable_thinking=True):
        assert not tokenize and add_generation_prompt
        written = "".join(f"<{message['role']}>{message['content']}" for message in messages)
        return f"{written}<assistant>{'<think>' if enable_thinking else ''}"


def shown(rows):
    return ["".join(map(chr, ids)) for ids in rows]


def test_a_chat_is_one_user_message_and_the_start_of_an_answer_without_a_thought():
    assert chat_text(Characters(), "Good?") == "<user>Good?<assistant>"
    assert shown(prompt_ids(Characters(), ["Good?", "Bad?"], chat=True)) == [
        "<user>Good?<assistant>",  # the template writes the special tokens itself
        "<user>Bad?<assistant>",
    ]


def test_a_conversation_is_its_turns_and_the_start_of_an_answer():
    prompt = Conversation((Turn("user", "Good?"), Turn("assistant", "no"), Turn("user", "Bad?")))
    assert chat_text(Characters(), prompt) == "<user>Good?<assistant>no<user>Bad?<assistant>"
    with pytest.raises(CapabilityError, match="in turns cannot be answered: prompts are sent bare; chat=true"):
        prompt_ids(Characters(), ["Good?", prompt], chat=False)


def test_a_bare_prompt_gets_the_special_tokens_of_its_tokenizer():
    assert shown(prompt_ids(Characters(), ["Good?"], chat=False)) == ["^Good?"]
    assert prompt_ids(Characters(), [], chat=False) == []


@pytest.mark.parametrize(("start", "expected"), [(ord("^"), "^"), (None, "_")])
def test_an_empty_prompt_is_the_token_that_a_text_starts_with(start, expected):
    class Bare(Characters):
        bos_token_id = start

        def __call__(self, text, add_special_tokens=True):
            return super().__call__(text, add_special_tokens=False)

    assert shown(prompt_ids(Bare(), ["", "a"], chat=False)) == [expected, "a"]


def test_an_answer_follows_a_space_after_a_bare_prompt_and_starts_after_a_chat_header():
    assert continuation(" positive\n", chat=False) == " positive"
    assert continuation(" positive\n", chat=True) == "positive"
    assert shown([continuation_ids(Characters(), "no", chat=False)]) == [" no"]


def test_a_tokenizer_without_a_template_cannot_chat():
    assert has_chat_template(Characters())
    assert not has_chat_template(None)
    assert not has_chat_template(lambda text: text)


CHAT = (
    "{% for m in messages %}<unk> {{ m['content'] }}{% if m['role'] == 'assistant' %} <end>{% endif %} {% endfor %}"
    "{% if add_generation_prompt %}answer{% endif %}"
)


@pytest.mark.parametrize(
    ("declared", "template", "expected"),
    [
        (1, None, (1,)),
        (None, None, (1,)),
        ([1, 5], None, (1, 5)),  # the list of a generation config
        (4, None, (1, 4)),  # the model and its tokenizer declare different ones
        (1, CHAT, (1, 13)),  # turns end with a token that nobody declares
        ([1, 6], CHAT, (1, 6, 13)),
        (1, "{% for m in messages %}{{ m['content'] }} task {% endfor %}", (1,)),  # a word is no end
        (1, "{{ raise_exception('one user message only') }}", (1,)),
    ],
)
def test_every_token_that_is_declared_to_end_a_text_ends_it(declared, template, expected):
    tokenizer = toy_model()[1]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end>"]})  # id 13, after the 13 words
    tokenizer.chat_template = template
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=declared))
    assert end_ids(model, tokenizer) == expected
