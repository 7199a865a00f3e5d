"""Instructions of other tools take part in a search."""

import re

import pytest

from interop.prompts import HARD, TURNS
from prewrite.errors import ConfigError
from prewrite.interop.formats import export
from prewrite.interop.wordings import read_wordings
from prewrite.scoring.prompt import TaskPrompt


def written(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return str(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text", "wordings"),
    [
        ("a.txt", "Sort it.\n\n  Sort the mail. \nSort it.\n", ["Sort it.", "Sort the mail."]),
        ("a.json", '{"signature": {"instructions": "Sort it.", "fields": []}, "demos": []}', ["Sort it."]),
        ("a.json", '{"a": {"signature": {"instructions": "A"}}, "b": {"instruction": "B"}}', ["A", "B"]),
        ("a.yaml", "prompts:\n- |\n  Sort it.\n  Go.\n\n  Mail: {{mail}}\n- 'Say {{ x }}'\n", ["Sort it.\nGo."]),
        ("a.yml", "prompts: 'Sort it.'\n", ["Sort it."]),
        ("a.yml", 'prompts:\n- raw: \'[{"role": "system", "content": "Sort {it}."}]\'\n', ["Sort {it}."]),
    ],
)  # fmt: skip
def test_wordings_are_read_from_the_files_of_other_tools(tmp_path, name, text, wordings):
    assert read_wordings(written(tmp_path, name, text)) == wordings


def test_what_was_exported_comes_back(tmp_path):
    HARD.save(tmp_path / "prompt.json")
    assert read_wordings(str(tmp_path / "prompt.json")) == [HARD.instruction]
    assert read_wordings(written(tmp_path, "a.json", export(HARD, "dspy").text)) == [HARD.full_instruction]
    bare = TaskPrompt(HARD.instruction)
    assert read_wordings(written(tmp_path, "a.yaml", export(bare, "promptfoo").text)) == [HARD.instruction]
    assert read_wordings(written(tmp_path, "b.yaml", export(TURNS, "promptfoo").text))[0].startswith("Do {it}")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", " \n", "holds no text; write one wording a line"),
        ("a.json", "[1]", "it holds a list, not an object); give the state of a DSPy program"),
        ("a.json", "{", "cannot be read ("),
        ("a.json", "{}", "holds no text; give the state of a DSPy program (program.save) or a prompt.json"),
        ("a.yaml", "prompts: [file://a.txt]", "prompt 'file://a.txt' is in another file); give a promptfoo config"),
        ("a.yaml", "prompts: prompts.txt", "is in another file"),
        ("a.yaml", "a: [", "cannot be read ("),
    ],
)
def test_what_holds_no_wordings_is_refused(tmp_path, name, text, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        read_wordings(written(tmp_path, name, text))
