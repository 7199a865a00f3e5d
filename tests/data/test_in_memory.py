"""Rows in memory: lists, data sets of `datasets`, DataFrames, dicts of splits."""

import numpy as np
import pandas
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from prewrite import PRewriteDataset, load_splits
from prewrite.errors import ConfigError, DataError
from prewrite.types import RewriteExample

ROWS = [
    {"instruction": "Is it?", "input": f"question {n}", "output": ["yes", "no"][n % 2], "task": "classification"}
    for n in range(10)
]


def told(dataset):
    return [(row.instruction, row.input, row.output, row.task) for row in dataset]


@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        tuple(ROWS),
        (row for row in ROWS),
        [RewriteExample(**row) for row in ROWS],
        [*ROWS[:5], *(RewriteExample(**row) for row in ROWS[5:])],
        Dataset.from_list(ROWS),
        pandas.DataFrame(ROWS),
        PRewriteDataset(ROWS),
    ],
    ids=["dicts", "tuple", "generator", "examples", "mixed", "datasets", "pandas", "itself"],
)
def test_every_kind_of_rows_is_the_same_data_set(rows):
    dataset = PRewriteDataset.of(rows)
    assert told(dataset) == [(row["instruction"], row["input"], row["output"], row["task"]) for row in ROWS]
    assert dataset[0].choices == ("no", "yes")


def test_settings_reach_rows_in_memory():
    rows = [{"text": row["input"], "label": row["output"]} for row in ROWS]
    mapped = {"column_map": {"input": "text", "output": "label"}, "instruction": "Is it?", "task": "classification"}
    assert told(PRewriteDataset(rows, **mapped)) == told(PRewriteDataset(ROWS))


def test_classes_of_a_data_set_have_their_names():
    features = Features({"input": Value("string"), "output": ClassLabel(names=["bad", "good"])})
    data = Dataset.from_dict({"input": ["a", "b"], "output": [1, 0]}, features=features)
    assert [row.output for row in PRewriteDataset(data, instruction="Judge.")] == ["good", "bad"]


def test_what_pandas_has_for_a_missing_value_is_a_missing_value():
    frame = pandas.DataFrame([{**ROWS[0], "choices": np.array(["yes", "no"])}, {**ROWS[1], "choices": None}])
    frame["template"] = [float("nan"), "Rewrite {instruction}"]
    first, second = PRewriteDataset(frame)
    assert (first.choices, first.template) == (("yes", "no"), None)
    assert second.template == "Rewrite {instruction}"


@pytest.mark.parametrize(
    ("rows", "error", "text"),
    [
        ([ROWS[0], "text"], DataError, "memory, row 2: got 'text'"),
        ([ROWS[0], {"input": "x"}], DataError, "memory, row 2, field 'output'"),
        ([], DataError, "memory"),
        (7, ConfigError, "give a file, a list of rows, a datasets.Dataset or a DataFrame"),
        ({"train": ROWS}, ConfigError, "got an object with train; give the rows of one"),
    ],
)
def test_what_holds_no_rows_says_so(rows, error, text):
    with pytest.raises(error) as caught:
        PRewriteDataset(rows)
    assert text in str(caught.value)


def test_a_slice_is_a_data_set_and_keeps_its_labels():
    dataset = PRewriteDataset(ROWS)
    assert told(dataset[2:4]) == told(dataset)[2:4]
    assert told(dataset[::-3]) == told(dataset)[::-3]
    assert dataset[:1][0].choices == ("no", "yes") and dataset[-1].input == "question 9"
    assert len(dataset[5:5]) == 0


def test_splits_come_from_a_dict_of_rows_too():
    parts = {name: [{**row, "input": f"{name} {row['input']}"} for row in ROWS] for name in ("train", "validation")}
    for source in (parts, DatasetDict({name: Dataset.from_list(rows) for name, rows in parts.items()})):
        splits = load_splits(source)
        assert {row.input.split()[0] for row in splits.dev} == {"validation"} and len(splits.dev) == 10
        assert len(splits.train) + len(splits.test) == 10
    assert len(load_splits(ROWS * 1, test=parts["train"]).test) == 10
    with pytest.raises(DataError, match="the rows are those of validation; name the first train"):
        load_splits({"validation": ROWS})
