"""Columns: places within them, types that they changed, names of classes, and rows as other tools write them."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prewrite.data import PRewriteDataset, load_splits
from prewrite.errors import ConfigError, DataError
from prewrite.types import RewriteExample

CASES = Path(__file__).resolve().parents[1] / "cases" / "columns.jsonl"
ROWS = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("case", [pytest.param(row, id=f"{n}: {row['why']}") for n, row in enumerate(ROWS, start=1)])
def test_a_row_is_read_from_its_columns(tmp_path, case):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(case["row"]), encoding="utf-8")
    options = {"column_map": case["columns"], "task": case.get("task")}
    if "error" in case:
        with pytest.raises((ConfigError, DataError)) as caught:
            PRewriteDataset(path, **options)
        assert case["error"] in str(caught.value)
    else:
        example = PRewriteDataset(path, **options)[0]
        for field, value in case["gives"].items():
            assert getattr(example, field) == (tuple(value) if isinstance(value, list) else value)


def parquet(path: Path, columns: dict) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


SENTIMENT = {"column_map": {"input": "text", "output": "label"}, "instruction": "Judge.", "task": "classification"}


def test_labels_in_a_column_of_decimal_numbers_are_whole_numbers(tmp_path):
    path = parquet(tmp_path / "r.parquet", {"text": ["a", "b"], "label": pa.array([0.0, 1.0])})
    assert [(e.output, e.choices) for e in PRewriteDataset(path, **SENTIMENT)] == [
        ("0", ("0", "1")),
        ("1", ("0", "1")),
    ]
    path = parquet(tmp_path / "d.parquet", {"text": ["a"], "label": pa.array([Decimal("2.50")])})
    assert PRewriteDataset(path, **SENTIMENT)[0].output == "2.5"


def test_names_of_classes_are_read_from_parquet_that_datasets_wrote(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    rows.to_parquet(tmp_path / "r.parquet")
    dataset = PRewriteDataset(tmp_path / "r.parquet", skip_bad_rows=True, **SENTIMENT)
    assert [(e.input, e.output) for e in dataset] == [("a", "good"), ("b", "bad")]
    assert dataset.skipped == {"output must be given": 1}  # -1 stands for "no label"


def test_names_of_classes_are_read_within_objects_and_lists(tmp_path):
    datasets = pytest.importorskip("datasets")
    kind = datasets.ClassLabel(names=["bad", "good"])
    told = {"meta": {"label": kind, "by": datasets.Value("string")}, "votes": datasets.Sequence(kind)}
    features = datasets.Features({"text": datasets.Value("string"), **told})
    metas = [{"label": label, "by": "me"} for label in (1, 0)]
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "meta": metas, "votes": [[0, 1], [1]]}, features=features)
    rows.to_parquet(tmp_path / "r.parquet")
    rows.save_to_disk(tmp_path / "saved")
    for source in (tmp_path / "r.parquet", tmp_path / "saved"):
        for place, labels in (("meta.label", ["good", "bad"]), ("votes[-1]", ["good", "good"])):
            options = SENTIMENT | {"column_map": {"input": "text", "output": place}}
            assert [e.output for e in PRewriteDataset(source, **options)] == labels


def test_places_in_columns_of_parquet_are_read(tmp_path):
    answers = [{"text": ["Paris", "paris"], "answer_start": [0, 5]}, {"text": ["Rome"], "answer_start": [3]}]
    path = parquet(tmp_path / "squad.parquet", {"question": ["Where?", "And?"], "answers": answers})
    for place in ("answers.text", "answers"):
        dataset = PRewriteDataset(
            path, column_map={"input": "question", "output": place}, instruction="Answer.", task="qa"
        )
        assert [e.targets for e in dataset] == [("Paris", "paris"), ("Rome",)]
    with pytest.raises(DataError, match="there is no column 'replies' for the field 'output'"):
        PRewriteDataset(path, column_map={"input": "question", "output": "replies.text"}, instruction="Answer.")


def test_folders_that_datasets_saved_are_read_alone_and_as_splits(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )

    def rows(name, count):
        texts = [f"{name} {number}" for number in range(count)]
        return datasets.Dataset.from_dict({"text": texts, "label": [0, 1] * (count // 2)}, features=features)

    rows("one", 4).save_to_disk(tmp_path / "one", num_shards=2)
    assert [e.output for e in PRewriteDataset(tmp_path / "one", **SENTIMENT)] == ["bad", "good", "bad", "good"]
    splits = {name: rows(name, count) for name, count in (("train", 8), ("validation", 4), ("test", 2))}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "dict")
    assert [len(part) for part in load_splits(tmp_path / "dict", **SENTIMENT)] == [8, 4, 2]
    assert [len(part) for part in load_splits(tmp_path / "one", seed=1, hold_out_test=False, **SENTIMENT)] == [3, 1, 0]
    (tmp_path / "one" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataError, match=r"one: not a data set that can be read .* after row 2; save it again"):
        PRewriteDataset(tmp_path / "one", **SENTIMENT)


# ---- text formats ------------------------------------------------------------------------------------------------

A_AND_B = [RewriteExample("I", "a, b", "x"), RewriteExample("I", "c", "y")]
A, B = '{"instruction": "I", "input": "a, b", "output": "x"}', '{"instruction": "I", "input": "c", "output": "y"}'
PROMPTFOO = """
prompts: ["{{input}}"]
providers: [{id: echo}]
tests:
- vars: {input: "a, b"}
  assert: [{type: equals, value: x}]
- vars: {input: c}
  assert: [{type: equals, value: "y"}]
"""


@pytest.mark.parametrize(
    ("name", "text", "note"),
    [
        ("r.csv", 'instruction,input,output\nI,"a, b",x\nI,c,y\n', None),
        ("r.csv", "instruction;input;output\nI;a, b;x\nI;c;y\n", "read as cells between semicolons"),
        ("r.csv", "instruction\tinput\toutput\nI\ta, b\tx\nI\tc\ty\n", "read as cells between tabs"),
        ("r.tsv", "input\toutput\na, b\tx\nc\ty\n", "read as cells between tabs"),
        ("r.csv", "instruction|input|output\nI|a, b|x\nI|c|y\n", "read as cells between bars"),
        ("r.csv", "output;input;more, or less\nx;a, b;1\ny;c;2\n", "read as cells between semicolons"),
        ("r.json", f"[{A},\n{B}]", None),
        ("r.jsonl", f"[{A}, {B}]", None),
        ("r.json", f'{{"rows": [{A}, {B}]}}', "the rows are those of 'rows'"),
        ("r.json", f'{{\n "version": 1,\n "data": [{A},\n{B}]}}', "the rows are those of 'data'"),
        ("r.yaml", "- {instruction: I, input: 'a, b', output: x}\n- {instruction: I, input: c, output: 'y'}\n", None),
        ("r.yaml", PROMPTFOO, "the rows are those of 'tests'"),
    ],
)  # fmt: skip
def test_a_file_of_another_form_is_read_and_what_was_guessed_is_said(tmp_path, name, text, note):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    dataset = PRewriteDataset(path, instruction="I")
    assert list(dataset) == A_AND_B
    assert dataset.source.notes == (() if note is None else (f"{path}: {note}",))


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("r.jsonl", f"{A},\n{B}\n", "line 1: .* remove the comma at its end"),
        ("r.json", f"[{A},\n]", "not valid JSON .*; remove the comma before the closing bracket"),
        ("r.json", '[{"instruction": "I",\n', "not valid JSON .*; correct it, or write one object per line"),
        ("r.json", f"[{A},\n7]", "row 2: got 7, but each row must be an object"),
        ("r.json", '{\n"a": [{"x": 1}],\n"b": [{"x": 1}]}', r"one object with 2 lists of rows in it \(a, b\)"),
        ("r.csv", "instruction,input,output\nI,a,b,\n", "line 2: got 4 cells.*remove the mark at its end"),
        ("r.yaml", "tests: [a, : b", "not valid YAML"),
        ("r.yaml", "just words", "got 'just words', but the file must hold a list of rows"),
        ("r.yaml", "tests: file://tests.csv", r"one object with 0 lists of rows in it \(tests\)"),
        ("r.xlsx", "PK\x03\x04", "is a spreadsheet; save the sheet as CSV"),
        ("r.csv", "PK\x03\x04", "is a zip file or a spreadsheet, whatever its name; save it as CSV"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_says_the_one_thing_to_do(tmp_path, name, text, error):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=error):
        PRewriteDataset(path)


# ---- what is said of rows that were read ---------------------------------------------------------------------------


def labelled(path: Path, labels: list, instruction: str) -> Path:
    rows = [
        {"instruction": instruction, "input": f"{path.stem} {n}", "output": label} for n, label in enumerate(labels)
    ]
    path.write_text("".join(json.dumps(row | {"task": "classification"}) + "\n" for row in rows), encoding="utf-8")
    return path


def test_labels_that_are_numbers_without_a_meaning_are_said(tmp_path):
    note = "'Judge the review.': the labels are numbers (0, 1), and the instruction does not say what they mean"
    splits = load_splits(labelled(tmp_path / "a.jsonl", [0.0, 1.0] * 10, "Judge the review."))
    assert [line for line in splits.notes() if line.startswith(note)]
    for instruction in ("Answer 1 for spam and 0 for the rest.", "Rate it from 1 to 5."):
        splits = load_splits(labelled(tmp_path / "b.jsonl", [0, 1] * 10, instruction))
        assert splits.notes() == []


def test_a_label_of_dev_rows_alone_and_an_instruction_that_is_not_used_are_said(tmp_path):
    labelled(tmp_path / "train.jsonl", ["spam", "ham"] * 4, "Sort it.")
    labelled(tmp_path / "dev.jsonl", ["spam", "ham", "eggs"], "Sort it.")
    labelled(tmp_path / "test.jsonl", ["spam", "ham"], "Sort it.")
    notes = load_splits(tmp_path, instruction="Something else.").notes()
    assert "'Sort it.': dev rows have labels that no train row has: eggs" in notes
    assert (
        f"{tmp_path / 'train.jsonl'}: 8 of 8 rows bring an instruction of their own; the one given is not theirs"
        in notes
    )
