"""What is exported reads back as the same prompt, and what cannot be written is said."""

import json
import re

import jinja2
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from interop.prompts import HARD, INPUT, TURNS, read_modelfile
from prewrite.cli.main import main
from prewrite.errors import ConfigError
from prewrite.interop.formats import FORMATS, export
from prewrite.interop.modelfile import printed
from prewrite.interop.slots import messages_with_gaps
from prewrite.run_folder import RunFolder
from prewrite.scoring.prompt import Exemplar, TaskPrompt

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.lists(
    st.sampled_from([*"{}%#\"'\\\n\r aé:", "{{", "}}", "{#", "#}", "{%", '"""'])
).map("".join)
PROMPTS = st.builds(
    TaskPrompt,
    TEXT.map(lambda text: f"Do{text}"),
    exemplars=st.lists(st.builds(Exemplar, TEXT, TEXT), max_size=2).map(tuple),
    layout=st.sampled_from(["instruction_first", "exemplars_first", "turns"]),
    template=st.sampled_from(
        ["{instruction}\n\nInput: {input}\nOutput:", "{input}{{{instruction}", "{instruction}{input}\n"]
    ),
)


def filled(template):
    return jinja2.Environment().from_string(template).render(input=INPUT)


def langchain_messages(text):
    """The messages of LangChain's JSON, their format strings filled; (kind, text)."""
    parts = json.loads(text)["kwargs"]["messages"]
    kinds = {"HumanMessagePromptTemplate": "user", "AIMessagePromptTemplate": "assistant"}
    return [
        {
            "role": kinds[part["id"][-1]],
            "content": part["kwargs"]["prompt"]["kwargs"]["template"].format(input=INPUT),
        }
        for part in parts
    ]


def promptfoo_messages(text):
    """The messages of promptfoo's YAML, its templates filled."""
    raw = yaml.safe_load(text)["prompts"][0]["raw"]
    if not raw.lstrip().startswith("["):
        return [{"role": "user", "content": filled(raw)}]
    return [part | {"content": filled(part["content"])} for part in json.loads(raw)]


@given(PROMPTS)
@example(TaskPrompt("Do\x85it\u2028now\u2029", exemplars=(Exemplar("{\r", "{\n"),)))
def test_any_prompt_survives_jinja_langchain_and_promptfoo(prompt):
    sent = prompt.messages(INPUT)
    assert langchain_messages(export(prompt, "langchain").text) == sent
    assert promptfoo_messages(export(prompt, "promptfoo").text) == sent
    if not prompt.in_turns:
        assert filled(export(prompt, "jinja").text) == prompt.render(INPUT)


@pytest.mark.parametrize("prompt", [HARD, TURNS])
def test_chat_messages_are_what_the_task_model_is_sent(prompt):
    messages = json.loads(export(prompt, "chat").text)
    for part in messages:
        part["content"] = part["content"].replace("{input}", INPUT)
    assert messages == prompt.messages(INPUT)


def test_plain_text_is_what_the_task_model_is_sent():
    assert export(HARD, "text").text.replace("{input}", INPUT) == HARD.render(INPUT)


def test_dspy_gets_the_instruction_with_its_answer_line_and_the_examples():
    state = json.loads(export(HARD, "dspy").text)
    assert state["signature"]["instructions"] == HARD.full_instruction
    assert [tuple(demo.values()) for demo in state["demos"]] == list(HARD.exemplars)


@given(PROMPTS)
def test_a_modelfile_holds_instruction_and_examples_or_is_refused(prompt):
    texts = [prompt.full_instruction, *(text for shown in prompt.exemplars for text in shown)]
    if any(re.search(r'"""[ \t]*[\r\n]', printed(text)) for text in texts):
        with pytest.raises(ConfigError, match='a line that ends in """'):
            export(prompt, "ollama", model="ollama:gemma3:4b")
        return
    written = export(prompt, "ollama", model="ollama:gemma3:4b")
    (first, model), (second, system), *turns = read_modelfile(written.text)
    assert (first, model, second, system) == ("FROM", "gemma3:4b", "SYSTEM", printed(texts[0]))
    assert [value for _, value in turns] == list(map(printed, texts[1:]))
    assert [name for name, _ in turns] == ["MESSAGE user", "MESSAGE assistant"] * len(prompt.exemplars)


def test_characters_that_ollama_drops_are_named():
    written = export(TaskPrompt("Say\u00a0it"), "ollama", model="ollama:gemma3:4b")
    assert any("U+00A0" in sentence for sentence in written.lost)


@pytest.mark.parametrize("to", FORMATS)
def test_every_format_says_that_label_offsets_stay_behind(to):
    prompt = TaskPrompt("Sort it.", label_offsets=(("spam", 1.25), ("ham", -0.5)))
    written = export(prompt, to, model="ollama:gemma3:4b")
    assert "the label offsets (spam +1.25, ham -0.50) are left out" in written.lost[0]
    assert "1.25" not in written.text


@pytest.mark.parametrize(
    ("prompt", "to", "model", "words"),
    [
        (HARD, "pdf", "", "format 'pdf' is unknown; choose one of text, chat, jinja"),
        (TURNS, "text", "", "turns of a conversation, which text cannot hold; export it to chat"),
        (TURNS, "jinja", "", "turns of a conversation, which jinja cannot hold"),
        (TaskPrompt("Fill {input}."), "text", "", "the prompt itself says {input}"),
        (TaskPrompt("Fill {input}."), "chat", "", "export it to jinja, langchain or promptfoo"),
        (HARD, "ollama", "", "the task model is not known; name one, as in --model ollama:gemma3:4b"),
        (HARD, "ollama", "hf:embedded", "the task model is hf:embedded; name one"),
        (HARD, "ollama", "gemma3", "task model 'gemma3' is not BACKEND:MODEL"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(prompt, to, model, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        export(prompt, to, model=model)


def test_the_gap_is_found_whatever_the_prompt_holds():
    prompt = TaskPrompt("\ue000 and \ue000\ue000")
    assert messages_with_gaps(prompt)[0].texts == ("\ue000 and \ue000\ue000\n\nInput: ", "\nOutput:")


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("ollama:gemma3:4b", "ollama:chat:gemma3:4b"),
        (
            "openai:m@http://127.0.0.1:8000/v1",
            {"id": "openai:chat:m", "config": {"apiBaseUrl": "http://127.0.0.1:8000/v1"}},
        ),
        ("hf:embedded", "echo"),
    ],
)
def test_promptfoo_asks_the_task_model_where_it_can(model, provider):
    written = export(HARD, "promptfoo", model=model)
    assert yaml.safe_load(written.text)["providers"] == [provider]
    assert any("the provider is echo" in sentence for sentence in written.lost) == (provider == "echo")


def test_a_run_is_exported_with_its_task_model_and_what_is_lost_goes_to_standard_error(tmp_path, capsys):
    run = RunFolder.create(tmp_path / "run")
    HARD.save(run.prompt)
    told = {"task_model": "ollama:gemma3:4b", "decoding": "likelihood", "tasks": [{}, {}]}
    run.write_json(run.result, told)
    assert main(["export", str(run.path), "--to", "ollama", "--output", str(tmp_path / "Modelfile")]) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'Modelfile'}\n" and "likeliest label" in err
    assert "the run has 2 instructions, and this is the prompt of the first" in err
    assert (tmp_path / "Modelfile").read_text(encoding="utf-8").startswith("FROM gemma3:4b\n")
    assert main(["export", str(run.prompt), "--to", "chat"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)[0]["role"] == "user" and "likeliest label" in err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["missing", "--to", "text"], "cannot be read"),
        (["prompt.json", "--to", "ollama"], "name one, as in --model ollama:gemma3:4b"),
        (["prompt.json", "--to", "docx", "--output", "a.docx"], "format 'docx' is unknown"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(tmp_path, capsys, monkeypatch, more, words):
    monkeypatch.chdir(tmp_path)
    HARD.save("prompt.json")
    assert main(["export", *more]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and "Traceback" not in error
    assert [file.name for file in tmp_path.iterdir()] == ["prompt.json"]
