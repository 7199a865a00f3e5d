"""What holds for every input, not only for those that somebody thought of; the inputs are drawn by hypothesis.

The draws are the same in every run. A draw that shows a fault becomes a case of its own where the fault is mended.
"""

from __future__ import annotations

import copy
import gzip
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from prewrite.cli.ask import read_inputs
from prewrite.cli.options import read_yaml
from prewrite.data import PRewriteDataset
from prewrite.data.readers import READERS
from prewrite.errors import ConfigError, DataError, PrewriteError
from prewrite.report.render import build_report
from prewrite.rewriter.meta_prompts import extract_rewrite
from prewrite.scoring.answers import parse_answer
from prewrite.scoring.metrics import METRICS
from prewrite.scoring.prompt import LAYOUTS, Exemplar, TaskPrompt, load_prompt
from prewrite.task_models.budget import Price
from prewrite.task_models.cache import answer_key
from prewrite.task_models.stream import Batch
from prewrite.text import fill, parse_json, parse_yaml
from prewrite.types import DECODINGS, Conversation, RewriteExample, Turn
from run_fixture import make_run

holds = settings(
    max_examples=80, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
PIECES = (
    "Answer:", "answer is", "yes", "no", "maybe", "Not ", "\\boxed{", "}", "{", "<answer>", "</answer>", "####", "7",
    "-3.5", "1,000", "=", "\n", " ", "**", "```", "Input:", "Output:", "<think>", "</think>", "Instruction:",
    "Sure! Here is the new instruction:", "“", "'", "。", "{input}", "{instruction}", "New instruction: ", "1. ", "é",
    '"label": ', "<|im_end|>", "\u200b",
)  # fmt: skip
texts = st.one_of(
    st.text(max_size=80), st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=25).map("".join)
)
words = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30).filter(str.strip)
LABELLED = RewriteExample("I", "x", "yes", choices=("yes", "no", "maybe"))
OPEN, MATH = RewriteExample("I", "x", "yes"), RewriteExample("I", "x", "7", task="math")


@holds
@given(texts)
@example("<answer>" * 500)
@example("\\boxed{" * 500)
def test_any_text_is_read_as_a_label_a_number_or_an_answer_of_its_own(text):
    assert parse_answer(text, LABELLED) in ("", "yes", "no", "maybe")
    for row in (OPEN, MATH):
        found = parse_answer(text, row)
        assert found == found.strip() and len(found) <= len(text) * 3 + 9


@holds
@given(
    st.sampled_from(["{}", "Answer: {}", "The answer is {}.", "**{}**", '{{"label": "{}"}}', "<answer>{}</answer>"]),
    st.sampled_from(LABELLED.choices),
)
def test_a_label_is_read_in_each_form_that_models_write(form, label):
    assert parse_answer(form.format(label), LABELLED) == label


@holds
@given(texts, texts)
def test_a_value_is_put_into_its_slot_as_it_is(first, second):
    assert fill("{a}|{b}|{c} {", {"a": first, "b": second}) == f"{first}|{second}|{{c}} {{"
    shown = TaskPrompt(first, template="{instruction}\n{input}").render(second)
    assert shown == f"{first}\n{second}"


@holds
@given(texts)
@example('"' * 60)
@example("Instruction:" * 30)
@example("</think></think>")
def test_a_rewrite_that_is_taken_out_twice_is_the_same(text):
    once = extract_rewrite(text)
    assert extract_rewrite(once) == once
    assert once == "" or any(map(str.isalnum, once))


@holds
@given(texts, st.lists(texts, min_size=1, max_size=3))
def test_a_metric_is_a_share_and_gives_a_gold_answer_all_of_it(prediction, targets):
    for name, metric in METRICS.items():
        assert 0 <= metric(prediction, targets) <= 1
        if name != "bleu":
            assert metric(prediction, targets) == metric(prediction, targets[::-1])
        if name in ("exact_match", "label_match", "token_f1"):
            assert metric(targets[0], targets) == 1


@holds
@given(
    st.lists(st.tuples(st.sampled_from(["I", "J"]), words, st.sampled_from("ab")), min_size=4, max_size=40),
    st.integers(0, 5),
)
def test_splits_share_the_rows_out_and_no_text_stands_in_two(rows, seed):
    examples = [RewriteExample(name, text, label, task="classification") for name, text, label in rows]
    try:
        dataset = PRewriteDataset.from_examples(examples)
        parts = list(dataset.split(seed=seed))
    except DataError as error:
        assert "too few" in str(error)
        return
    indices = np.concatenate([part.indices for part in parts])
    assert sorted(indices.tolist()) == list(range(len(rows)))
    keys = [set(part.content_keys().tolist()) for part in parts]
    assert not (keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2])
    assert [part.indices.tolist() for part in dataset.split(seed=seed)] == [part.indices.tolist() for part in parts]


prompts = texts | st.lists(texts, min_size=1, max_size=3).map(
    lambda said: Conversation(tuple(Turn(("user", "assistant")[place % 2], text) for place, text in enumerate(said)))
)
questions = st.tuples(
    texts,
    st.sampled_from(["generate", "constrained", "label_logprobs", "target_logprobs"]),
    prompts,
    st.lists(texts, max_size=2).map(tuple),
    st.none() | texts,
)


def key_of(question):
    identity, method, prompt, labels, target = question
    targets = () if target is None else (target,)
    return answer_key(identity, Batch(method, (prompt,), labels=labels, targets=targets), 0)


@holds
@given(questions, questions)
@example(("a", "generate", "b", ("c",), None), ("a", "generate", "b", (), "c"))
@example(("a", "generate", "b", ("c", "d"), None), ("a", "generate", "b", ('c", "d',), None))
def test_only_the_same_question_has_the_same_key_in_the_cache(first, second):
    assert (key_of(first) == key_of(second)) == (first == second)


task_prompts = st.builds(
    TaskPrompt,
    words,
    answer_line=st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
    exemplars=st.lists(st.builds(Exemplar, words, words), max_size=3).map(tuple),
    layout=st.sampled_from(LAYOUTS),
    template=st.sampled_from(["{instruction}\n{input}", "{input}: {instruction}", "sst2"]),
    label_offsets=st.none()
    | st.dictionaries(words, st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=3).map(
        lambda offsets: tuple(offsets.items())
    ),
    decoding=st.sampled_from(["auto", *DECODINGS]),
)


@holds
@given(task_prompts, words)
def test_a_prompt_on_disk_is_the_prompt(prompt, text):
    again = TaskPrompt.from_json(json.loads(json.dumps(prompt.to_json())))
    assert again == prompt and again.sent(text) == prompt.sent(text)
    with tempfile.TemporaryDirectory() as folder:
        prompt.save(Path(folder) / "prompt.json")
        assert load_prompt(folder) == prompt


row_like = st.lists(
    st.sampled_from(
        ['{"input": "a", "output": "b"}', "input,output\n", "a,b\n", "\n", "{", "}", "[", "]", ",", '"', ":", "- ",
         "&a ", "*a", "input: a", "output: b", "!!int x", "!!bool x", "!!timestamp x", "2026-02-31", "\t", "\0",
         "\r", "\ufeff", "NaN", "1e999"]
    )
    | st.text(max_size=4),
    max_size=12,
).map(lambda parts: "".join(parts).encode("utf-8", "surrogatepass"))  # fmt: skip
contents = st.one_of(st.binary(max_size=80), row_like, row_like.map(gzip.compress))


@holds
@given(contents, st.sampled_from([*READERS]))
@example(b"\r\r", ".csv")
def test_any_bytes_in_a_data_file_are_rows_or_one_message(content, suffix):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"rows{suffix}"
        file.write_bytes(content)
        try:
            rows = list(PRewriteDataset.load(file, instruction="I", skip_bad_rows=True))
        except DataError as error:
            assert str(file) in str(error)
        else:
            assert rows and all(row.input.strip() for row in rows)


@holds
@given(contents)
@example(b"[" * 1500)
@example(b"9" * 5000)
def test_any_bytes_in_a_file_of_settings_prompts_prices_or_inputs_are_read_or_one_message(content):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "given"
        file.write_bytes(content)
        for read in (load_prompt, read_yaml, lambda path: Price.load(path, "m"), lambda path: list(read_inputs(path))):
            try:
                read(file)
            except (ConfigError, DataError) as error:
                assert "given" in str(error) and len(str(error)) < 2000
    for parse in (parse_json, parse_yaml):
        try:
            parse(content.decode("utf-8", "replace"))
        except ValueError as error:
            assert "\n" not in str(error)


# ---- files of a run, changed at one place --------------------------------------------------------------------------

OTHER = (None, True, 0, -1, 1.5, "", "text", [], [1], {}, {"a": 1}, "GONE")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two small runs: one with a test, one without."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [make_run(folder / "tested", updates=3, per_update=2, test_rows=8)]
    return [*runs, make_run(folder / "untested", updates=2, per_update=2, test_rows=0)]


def places(value, path=()):
    """Where in a JSON value there is something, the whole left out."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield (*path, name)
        yield from places(part, (*path, name))


def with_other(value, place, other):
    """A copy with something else at a place."""
    changed = copy.deepcopy(value)
    part = changed
    for name in place[:-1]:
        part = part[name]
    if other == "GONE":
        del part[place[-1]]
    else:
        part[place[-1]] = other
    return changed


@settings(holds, max_examples=60)
@given(data=st.data())
def test_a_file_of_a_run_that_was_changed_anywhere_gives_a_report_or_one_message(finished, data):
    source = data.draw(st.sampled_from(finished), label="run")
    names = sorted(file.name for file in source.iterdir() if file.suffix in (".json", ".jsonl"))
    name = data.draw(st.sampled_from(names), label="file")
    text = (source / name).read_text(encoding="utf-8")
    lines = text.splitlines() if name.endswith("l") else [text]
    number = data.draw(st.integers(0, len(lines) - 1), label="line")
    value = json.loads(lines[number])
    place = data.draw(st.sampled_from(list(places(value))), label="place")
    lines[number] = json.dumps(with_other(value, place, data.draw(st.sampled_from(OTHER), label="value")))
    with tempfile.TemporaryDirectory() as folder:
        run = Path(shutil.copytree(source, Path(folder) / "run"))
        (run / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        try:
            assert build_report(run).stat().st_size > 1000
        except PrewriteError as error:
            assert name in str(error) and len(str(error)) < 1000
