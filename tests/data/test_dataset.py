"""Reading rows: formats, the rules of a row, and what is said when one is broken."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_sets import small_and_public_data
from prewrite.data import PRewriteDataset, load_splits
from prewrite.errors import ConfigError, DataError
from prewrite.types import RewriteExample
from servers.hub_server import SilentHub

ROWS = [
    {"instruction": "Classify.", "input": "fine film", "output": "positive", "task": "classification"},
    {"instruction": "Classify.", "input": "dull, “long”", "output": "negative", "task": "classification"},
    {"instruction": "Classify.", "input": "two\nlines", "output": "positive", "task": "classification"},
]
EXAMPLES = [
    RewriteExample("Classify.", "fine film", "positive", "classification", None, ("negative", "positive")),
    RewriteExample("Classify.", "dull, “long”", "negative", "classification", None, ("negative", "positive")),
    RewriteExample("Classify.", "two\nlines", "positive", "classification", None, ("negative", "positive")),
]
GOOD = '{"instruction": "I", "input": "a", "output": "b"}'


def write_jsonl(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_lines(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def row(**fields: object) -> str:
    return json.dumps({"instruction": "I", "input": "a", "output": "b"} | fields)


@pytest.mark.parametrize(
    "name", ["rows.jsonl", "rows.json", "rows.jsonl.gz", "rows.json.gz", "rows.parquet", "rows.csv"]
)
def test_every_format_gives_the_same_examples(tmp_path, name):
    path = tmp_path / name
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    elif name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif name.endswith(".csv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ROWS[0])
            writer.writeheader()
            writer.writerows(ROWS)
    else:
        path.write_text(text, encoding="utf-8")
    dataset = PRewriteDataset(path)
    assert list(dataset) == list(dataset.iter()) == list(PRewriteDataset.load(str(path))) == EXAMPLES
    assert [dataset[index] for index in range(3)] == EXAMPLES
    assert len(dataset) == 3 and dataset.indices.tolist() == [0, 1, 2] and dataset[-1] == EXAMPLES[2]


def test_the_first_designs_import_works_from_the_root():
    root = Path(__file__).resolve().parents[2]
    code = "from load_datasets import PRewriteDataset; print(PRewriteDataset.__module__)"
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "prewrite.data.dataset\n"), result.stderr


def test_examples_in_memory_come_back_as_they_were():
    examples = [
        RewriteExample("Answer.", "q", ("Paris", "paris, France"), "qa"),
        RewriteExample("Pick.", "p", "b", "classification", "Rewrite: {instruction}", ("b", "a")),
        RewriteExample("Plain.", "x", "y"),
    ]
    assert list(PRewriteDataset.from_examples(examples)) == examples


def test_columns_are_mapped_and_defaults_fill_only_what_is_missing(tmp_path):
    path = write_jsonl(
        tmp_path / "r.jsonl", [{"text": "a", "label": 1}, {"text": "b", "label": 0, "instruction": "Own."}]
    )
    dataset = PRewriteDataset.load(
        path, column_map={"input": "text", "output": "label"}, instruction="Default.", task="qa"
    )
    assert [(e.instruction, e.input, e.output, e.task) for e in dataset] == [
        ("Default.", "a", "1", "qa"),
        ("Own.", "b", "0", "qa"),
    ]


def test_numbers_and_booleans_become_their_json_text(tmp_path):
    path = write_lines(tmp_path / "r.jsonl", *(row(output=value) for value in (7, 1.5, True, False, [3, "drei"])))
    assert [example.output for example in PRewriteDataset(path)] == ["7", "1.5", "true", "false", ("3", "drei")]


def test_answers_lose_surrounding_space_and_inputs_keep_it(tmp_path):
    example = PRewriteDataset(write_lines(tmp_path / "r.jsonl", row(input=" a ", output=" b\n")))[0]
    assert (example.input, example.output) == (" a ", "b")


def test_choices_are_the_sorted_outputs_of_the_same_instruction_unless_given(tmp_path):
    rows = [
        {"instruction": "One.", "input": "a", "output": "y", "task": "classification"},
        {"instruction": "One.", "input": "b", "output": "x", "task": "classification"},
        {"instruction": "Two.", "input": "c", "output": 2, "task": "classification"},
        {"instruction": "Two.", "input": "d", "output": 1, "task": "classification"},
        {"instruction": "Two.", "input": "e", "output": "z", "task": "classification", "choices": ["z", "q"]},
        {"instruction": "Two.", "input": "f", "output": "free text", "task": "qa"},
    ]
    dataset = PRewriteDataset(write_jsonl(tmp_path / "r.jsonl", rows))
    assert [example.choices for example in dataset] == [("x", "y")] * 2 + [("1", "2", "z")] * 2 + [("z", "q"), None]


def test_choices_may_be_a_json_list_in_a_csv_cell(tmp_path):
    path = write_lines(
        tmp_path / "r.csv", "instruction,input,output,choices,task", 'I,a,yes,"[""yes"", ""no""]",', "I,b,c,,qa"
    )
    assert [(e.choices, e.task) for e in PRewriteDataset(path)] == [
        (("yes", "no"), "classification"),
        (None, "qa"),
    ]


def test_a_row_with_choices_is_classification_whatever_other_rows_are_by_default(tmp_path):
    labels = ["c", "c++"]
    path = write_jsonl(
        tmp_path / "r.jsonl",
        [
            {"instruction": "Name the language.", "input": "int x;", "output": "c", "choices": labels},
            {"instruction": "Say who wrote it.", "input": "K&R", "output": "Kernighan and Ritchie"},
        ],
    )
    assert [example.task for example in PRewriteDataset(path)] == ["classification", None]
    assert [example.task for example in PRewriteDataset(path, task="qa")] == ["classification", "qa"]


@pytest.mark.parametrize(
    ("line", "field", "value", "rule"),
    [
        ('{"input": "a", "output": "b"}', "instruction", "missing", "must be given"),
        ('{"instruction": "I", "output": "b"}', "input", "missing", "must be given"),
        (row(output=None), "output", "empty (null)", "must be given"),
        (row(instruction=5), "instruction", "int 5", "must be text"),
        (row(input=" \n"), "input", "' \\n'", "must not be blank"),
        (row(output=""), "output", "''", "must not be blank"),
        (row(output=["a", ""]), "output", "''", "must not be blank"),
        (row(input=["a"]), "input", "['a']", "must be text or a number"),
        (row(output={"a": 1}), "output", "{'a': 1}", "must be text or a number"),
        (row(output=[["a"]]), "output", "['a']", "must be text or a number"),
        (row(output=[]), "output", "empty list", "must hold at least one answer"),
        (row(output=["a"], task="classification"), "output", "['a']", "must be one label"),
        (row(output=float("nan")), "output", "nan", "must be finite"),
        (row(input=float("inf")), "input", "inf", "must be finite"),
        (row(task="sorting"), "task", "'sorting'", "must be one of classification, qa, math"),
        (row(task=["qa"]), "task", "['qa']", "must be one of classification, qa, math"),
        (row(template=" "), "template", "' '", "must not be blank"),
        (row(template="Improve it."), "template", "'Improve it.'", "must hold the slot {instruction}"),
        (row(choices=["b", "c"], task="qa"), "task", "'qa'", "must be 'classification' where the row has choices"),
        (row(choices=["b", "c"], output=["b"]), "output", "['b']", "must be one label"),
        (row(choices=["x", "y"]), "output", "'b'", "must be one of the row's choices"),
        (row(choices=["b"]), "choices", "['b']", "two or more different labels"),
        (row(choices=["b", "b"]), "choices", "['b', 'b']", "two or more different labels"),
        (row(choices="b|c"), "choices", "'b|c'", "two or more different labels"),
        (row(input="\ud800"), "input", "'\\ud800'", "must be valid Unicode"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_by_file_line_field_value_and_rule(tmp_path, line, field, value, rule):
    path = write_lines(tmp_path / "r.jsonl", GOOD, "", line)
    with pytest.raises(DataError) as caught:
        PRewriteDataset(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line 3, field '{field}': ")  # the blank line counts as a line
    assert value in message and rule in message and "; " in message


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('["a", "b"]', "got ['a', 'b']"),
        ('"text"', "got 'text'"),
        ('{"instruction": "I", "input": ', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"output": ' + "9" * 5000 + "}", "is not JSON"),
    ],
)
def test_a_line_that_is_no_json_object_is_a_bad_row(tmp_path, line, problem):
    path = write_lines(tmp_path / "r.jsonl", GOOD, line, GOOD)
    with pytest.raises(DataError, match=re.escape(f"{path}, line 2: ")) as caught:
        PRewriteDataset(path)
    assert problem in str(caught.value) and "one JSON object" in str(caught.value)
    assert len(str(caught.value)) < 500  # the line is cut, not poured into the terminal
    assert len(PRewriteDataset(path, skip_bad_rows=True)) == 2


def test_skipped_rows_are_counted_by_rule_and_row_numbers_stay_those_of_the_file(tmp_path):
    path = write_lines(tmp_path / "r.jsonl", row(output=None), GOOD, row(output=""), "no", row(output=None), GOOD)
    dataset = PRewriteDataset.load(path, skip_bad_rows=True)
    assert dataset.skipped == {
        "output must be given": 2,
        "output must not be blank": 1,
        "each line must hold one JSON object": 1,
    }
    assert f"{path}, line 1, field 'output'" in dataset.source.first_skipped["output must be given"]
    assert dataset.indices.tolist() == [1, 5]


def test_a_file_with_only_bad_rows_is_an_error_even_when_they_may_be_skipped(tmp_path):
    with pytest.raises(DataError, match=r"all 2 rows are bad: .*line 1"):
        PRewriteDataset(write_lines(tmp_path / "r.jsonl", "no", "no"), skip_bad_rows=True)


@pytest.mark.parametrize("name", ["r.jsonl", "r.csv", "r.json.gz"])
def test_an_empty_file_is_an_error(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"\n\n") if name.endswith(".gz") else b"")
    with pytest.raises(DataError, match=re.escape(f"{path}: the file holds no rows")):
        PRewriteDataset(path)


def test_a_repeated_id_names_both_lines_and_a_number_equals_its_text(tmp_path):
    path = write_lines(tmp_path / "r.jsonl", row(id=1), row(id="x"), row(), row(), row(id="1"))
    with pytest.raises(DataError, match=r"line 5, field 'id': got '1', which line 1 has too, but it must be unique"):
        PRewriteDataset(path)
    dataset = PRewriteDataset(path, skip_bad_rows=True)
    assert dataset.indices.tolist() == [0, 1, 2, 3] and dataset.skipped == {"id must be unique": 1}


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n" + GOOD.encode())
    assert len(PRewriteDataset(path)) == 2
    path = tmp_path / "r.csv"
    path.write_bytes(b"\xef\xbb\xbfinstruction,input,output\r\nI,a,b\r\n")
    assert PRewriteDataset(path)[0] == RewriteExample("I", "a", "b")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["r.jsonl", "r.csv"])
def test_utf_16_is_recognised_and_the_conversion_named(tmp_path, encoding, name):
    path = tmp_path / name
    path.write_bytes(GOOD.encode(encoding))
    with pytest.raises(DataError, match="not UTF-8 but probably UTF-16; convert it: iconv"):
        PRewriteDataset(path)


def test_windows_1252_is_an_error_of_the_file_that_names_line_and_byte_and_is_never_skipped(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(GOOD.encode() + b"\n" + '{"input": "Käse"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"line 2: byte 0xe4 at position 12 is not UTF-8.*iconv -f WINDOWS-1252"):
        PRewriteDataset(path, skip_bad_rows=True)


@pytest.mark.parametrize("name", ["r.jsonl", "r.csv", "r.parquet"])
def test_a_line_of_a_megabyte_is_a_row_like_any_other(tmp_path, name):
    text, path = "wörd " * 200_000 + "end", tmp_path / name
    if name == "r.jsonl":
        write_lines(path, row(input=text))
    elif name == "r.csv":
        write_lines(path, "instruction,input,output", f"I,{text},b")
        assert csv.field_size_limit() < len(text)
    else:
        pq.write_table(pa.Table.from_pylist([{"instruction": "I", "input": text, "output": "b"}]), path)
    assert PRewriteDataset(path)[0].input == text


def test_a_file_without_line_ends_is_not_read_into_memory_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("prewrite.data.readers.MAX_LINE_BYTES", 2**20)
    path = write_lines(tmp_path / "r.jsonl", GOOD, row(input="a" * 2**20))
    with pytest.raises(DataError, match="line 2: longer than 1 MiB; are the line ends missing"):
        PRewriteDataset(path)


def test_a_truncated_or_false_gzip_is_an_error(tmp_path):
    path = tmp_path / "r.jsonl.gz"
    whole = gzip.compress("".join(row(input=str(n)) + "\n" for n in range(5000)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"reading stopped after line \d+ \(.*\); is the file whole"):
        PRewriteDataset(path, skip_bad_rows=True)
    path.write_bytes(whole[:200] + bytes(100) + whole[300:])
    with pytest.raises(DataError, match="reading stopped after line"):
        PRewriteDataset(path, skip_bad_rows=True)
    path.write_bytes(GOOD.encode())
    with pytest.raises(DataError, match="reading stopped after line 0"):
        PRewriteDataset(path)


def test_a_corrupt_parquet_file_is_an_error(tmp_path):
    path = tmp_path / "r.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS * 100), path)
    whole = path.read_bytes()
    for broken in (b"", b"not parquet at all", whole[:-20], whole[:4] + bytes(60) + whole[64:]):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=re.escape(f"{path}: not a readable Parquet file")):
            PRewriteDataset(path)


def test_columns_of_wrong_type_in_parquet_are_named_by_row(tmp_path):
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"instruction": ["I", "I"], "input": ["a", "b"], "output": pa.array([b"x", b"y"])}), path)
    with pytest.raises(DataError, match="row 1, field 'output': got bytes b'x', but it must be text or a number"):
        PRewriteDataset(path)


@pytest.mark.parametrize("name", ["r.csv", "r.parquet"])
def test_a_missing_column_is_named_with_the_columns_there_are(tmp_path, name):
    path = tmp_path / name
    if name == "r.csv":
        write_lines(path, "instruction,text,label", "I,a,b")
    else:
        pq.write_table(pa.table({"instruction": ["I"], "text": ["a"], "label": ["b"]}), path)
    with pytest.raises(DataError, match=r"no column 'input' .* columns are instruction, text, label; .*column_map"):
        PRewriteDataset(path)
    with pytest.raises(DataError, match="no column 'tag' for the field 'output'"):
        PRewriteDataset(path, column_map={"input": "text", "output": "tag"})


def test_csv_faults_are_named_by_line(tmp_path):
    path = write_lines(tmp_path / "r.csv", "instruction,input,output", 'I,"two', 'lines",b', "I,one,too,many", "I,a,b")
    with pytest.raises(DataError, match="line 4: got 4 cells, but a row must have the header's 3 cells"):
        PRewriteDataset(path)
    assert [e.input for e in PRewriteDataset(path, skip_bad_rows=True)] == ["two\nlines", "a"]
    with pytest.raises(DataError, match="line 2: not valid CSV"):
        PRewriteDataset(write_lines(path, "instruction,input,output", 'I,"a,b'))
    with pytest.raises(DataError, match="names a column twice"):
        PRewriteDataset(write_lines(path, "input,input,output", "a,b,c"))


def test_paths_that_are_no_data_file_are_errors(tmp_path):
    for name in ("none.jsonl", "no_folder"):
        with pytest.raises(DataError, match=rf"{name} does not exist \(looked in "):
            PRewriteDataset(tmp_path / name)
    for folder in (tmp_path, tmp_path / "folder.jsonl"):
        folder.mkdir(exist_ok=True)
        with pytest.raises(DataError, match=r"is a folder; give a file, or .* load_splits"):
            PRewriteDataset(folder)
    with pytest.raises(DataError, match=r"unknown file type; the name must end in one of \.jsonl"):
        PRewriteDataset(write_lines(tmp_path / "r.txt", GOOD))


def test_wrong_settings_are_errors_before_anything_is_read():
    with pytest.raises(ConfigError, match=r"column_map: unknown field 'text'.*our fields are instruction, input"):
        PRewriteDataset("none.jsonl", column_map={"text": "input"})
    with pytest.raises(ConfigError, match="unknown task 'sort'; it must be one of classification, qa, math"):
        PRewriteDataset("none.jsonl", task="sort")
    with pytest.raises(ConfigError, match="instruction: must not be blank"):
        PRewriteDataset("none.jsonl", instruction=" ")


def test_a_hub_id_is_read_with_config_split_and_label_names(tmp_path, monkeypatch):
    """The real loading path of the package `datasets`, on a data set that lies in the working folder."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "acme" / "reviews"
    folder.mkdir(parents=True)
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    for split, labels in (("train", [1, 0]), ("test", [0, -1])):
        rows = datasets.Dataset.from_dict(
            {"text": [f"{split} one", f"{split} two"], "label": labels}, features=features
        )
        rows.to_parquet(folder / f"{split}.parquet")
    options = {"column_map": {"input": "text", "output": "label"}, "instruction": "Judge.", "task": "classification"}
    assert [(e.input, e.output) for e in PRewriteDataset.load("hf:acme/reviews", **options)] == [
        ("train one", "good"),
        ("train two", "bad"),
    ]
    with pytest.raises(DataError, match=r"hf:acme/reviews@test, row 2, field 'output': .*must be given"):
        PRewriteDataset.load("hf:acme/reviews@test", **options)
    test = PRewriteDataset.load("hf:acme/reviews:default@test", skip_bad_rows=True, **options)
    assert [(e.input, e.output) for e in test] == [("test one", "bad")]  # -1 stands for no label
    with pytest.raises(DataError, match=r"hf:acme/reviews@dev: the hub data set could not be loaded .*check the name"):
        PRewriteDataset.load("hf:acme/reviews@dev", **options)
    with pytest.raises(DataError, match="there is no column 'input'"):
        PRewriteDataset.load("hf:acme/reviews")


OUT_OF_REACH = (
    "the data set was not fetched before; download it elsewhere, save it as JSONL or Parquet, and give that file"
)


def test_without_a_connection_the_hub_error_says_what_to_do(tmp_path):
    pytest.importorskip("datasets")
    code = "from prewrite.data import PRewriteDataset; PRewriteDataset('hf:acme/nothing:plain@test')"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    told = f"hf:acme/nothing:plain@test: the hub cannot be reached (HF_HUB_OFFLINE is set), and {OUT_OF_REACH}"
    assert result.stderr.splitlines()[-1] == f"prewrite.errors.DataError: {told}"


def test_a_hub_that_does_not_answer_is_asked_once_for_a_data_set(tmp_path):
    pytest.importorskip("datasets")
    code = "from prewrite.data import PRewriteDataset; PRewriteDataset('hf:acme/nothing')"
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    with SilentHub("acme/nothing", {}) as hub:
        environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)}
        result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert "hf:acme/nothing: the hub cannot be reached (" in result.stderr and OUT_OF_REACH in result.stderr
        assert hub.asked == [("HEAD", "/")]


def test_a_hub_id_of_the_wrong_form_is_an_error():
    with pytest.raises(DataError, match=r"'hf:a/b/c': not a hub data set; write hf:owner/name"):
        PRewriteDataset("hf:a/b/c")


@small_and_public_data
def test_every_data_set_loads_and_its_gold_labels_are_choices(data):
    folders = [folder for folder in sorted(data.iterdir()) if folder.is_dir()]
    assert folders
    for folder in folders:
        for part in load_splits(folder):
            assert len(part)
            for example in part:
                if example.task == "classification":
                    assert example.output in example.choices, (folder.name, example)
                else:
                    assert example.choices is None


def test_an_instruction_has_one_template(tmp_path):
    own, other = {"template": "Better: {instruction}"}, {"template": "{instruction} in other words"}
    path = write_lines(tmp_path / "r.jsonl", row(**own), row(input="c", **own), row(instruction="J"))
    assert PRewriteDataset(path).templates() == {"I": "Better: {instruction}"}
    assert PRewriteDataset(write_lines(tmp_path / "none.jsonl", GOOD)).templates() == {}
    for odd in (row(input="c", **other), row(input="c")):
        path = write_lines(tmp_path / "odd.jsonl", row(**own), row(instruction="J"), odd)
        with pytest.raises(DataError, match=r"odd.jsonl, line 3, field 'template'.*'Better: .*must be the same"):
            PRewriteDataset(path).templates()


def test_a_template_that_differs_between_splits_is_refused(tmp_path):
    own, other = {"template": "Better: {instruction}"}, {"template": "{instruction} in other words"}
    write_lines(tmp_path / "train.jsonl", row(**own), row(input="b", **own))
    write_lines(tmp_path / "dev.jsonl", row(input="c", **other), row(input="d", **other))
    write_lines(tmp_path / "test.jsonl", row(input="e"))
    with pytest.raises(DataError, match=r"dev.jsonl, field 'template': dev rows of .*in other words.*'Better: "):
        load_splits(tmp_path)
    write_lines(tmp_path / "dev.jsonl", row(input="c"))
    assert load_splits(tmp_path).train.templates() == {"I": "Better: {instruction}"}
