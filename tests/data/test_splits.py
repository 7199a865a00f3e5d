"""Splitting: disjoint, stratified, seeded, without leakage; and what is recorded of it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from prewrite.data import PRewriteDataset, load_splits
from prewrite.data.splits import normalise
from prewrite.errors import ConfigError, DataError
from prewrite.types import RewriteExample


def write(path: Path, rows: list[tuple[str, str]], **fields: object) -> Path:
    """Rows of (input, label), all of one instruction unless `fields` says more."""
    base = {"instruction": "Classify.", "task": "classification"} | fields
    lines = (json.dumps(base | {"input": text, "output": label}) + "\n" for text, label in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def labelled(count: int, prefix: str = "text") -> list[tuple[str, str]]:
    """Every fourth row is `rare`, the others `common`."""
    return [(f"{prefix} {number}", "rare" if number % 4 == 0 else "common") for number in range(count)]


def in_memory(count: int) -> PRewriteDataset:
    return PRewriteDataset.from_examples(
        RewriteExample("I", text, label, "classification") for text, label in labelled(count)
    )


def test_splits_are_disjoint_whole_stratified_and_in_file_order():
    train, dev, test = in_memory(200).split()
    assert [len(part) for part in (train, dev, test)] == [120, 40, 40]  # 60, 20, 20 %
    for part in (train, dev, test):
        labels = Counter(example.output for example in part)
        assert abs(labels["rare"] - len(part) / 4) <= 1
        assert part.indices.tolist() == sorted(part.indices.tolist())
    assert sorted([*train.indices, *dev.indices, *test.indices]) == list(range(200))


def test_rows_with_choices_are_stratified_by_label_without_naming_their_task(tmp_path):
    path = write(tmp_path / "rows.jsonl", labelled(200), task=None, choices=["common", "rare"])
    for part in PRewriteDataset(path).split():
        labels = Counter(example.output for example in part)
        assert abs(labels["rare"] - len(part) / 4) <= 1


def test_a_seed_gives_its_split_again_and_another_seed_another():
    first, again, other = (in_memory(100).split(seed=seed).test.indices.tolist() for seed in (3, 3, 4))
    assert first == again != other


def test_instructions_without_labels_are_spread_over_the_splits_too():
    examples = [RewriteExample(f"Instruction {n % 5}", f"text {n}", f"answer {n}", "qa") for n in range(100)]
    for part, share in zip(PRewriteDataset.from_examples(examples).split(), (12, 4, 4), strict=True):
        assert all(abs(len(rows) - share) <= 1 for rows in part.by_instruction().values())
        assert len(part.by_instruction()) == 5


def test_rows_equal_after_normalisation_never_cross_splits():
    variants = ("Straße {}", "STRASSE  {}", " straße\t{}", "\uff53trasse {}")  # case, spaces, full-width s (NFKC)
    examples = [
        RewriteExample("I", variant.format(number), ("a", "b")[number % 2], "classification")
        for number in range(40)
        for variant in variants
    ]
    assert len({normalise(variant) for variant in variants}) == 1
    for seed in range(3):
        homes: dict[str, set[str]] = {}
        splits = PRewriteDataset.from_examples(examples).split(seed=seed)
        for name, part in zip(("train", "dev", "test"), splits, strict=True):
            for example in part:
                homes.setdefault(normalise(example.input), set()).add(name)
        assert len(homes) == 40 and all(len(names) == 1 for names in homes.values())


def test_the_same_input_under_another_instruction_is_another_row():
    examples = [RewriteExample(f"I{n}", "same", "a", "qa") for n in range(10)]
    assert [len(part) for part in PRewriteDataset.from_examples(examples).split()] == [6, 2, 2]


def test_a_label_with_one_row_goes_to_train():
    examples = [RewriteExample("I", f"t{n}", "common", "classification") for n in range(50)]
    examples += [RewriteExample("I", "odd one", "rare", "classification")]
    for seed in range(10):
        train = PRewriteDataset.from_examples(examples).split(seed=seed).train
        assert "rare" in {example.output for example in train}


def test_fractions_may_leave_a_split_empty_and_wrong_ones_are_named():
    splits = in_memory(40).split((0.5, 0.0, 0.5))
    assert [len(part) for part in splits] == [20, 0, 20] and list(splits.dev) == []
    for wrong in ((0.6, 0.2, 0.3), (0.0, 0.5, 0.5), (1.2, -0.2, 0.0), (0.5, 0.5)):
        with pytest.raises(ConfigError, match=r"fractions: got .*sum to 1"):
            in_memory(40).split(wrong)


def test_too_few_different_rows_are_an_error():
    examples = [RewriteExample("I", "same", "a", "qa")] * 10
    with pytest.raises(DataError, match=r"the 10 rows \(1 different\) are too few: dev would be empty"):
        PRewriteDataset.from_examples(examples).split()


def test_select_and_by_instruction_keep_the_row_numbers_and_the_choices():
    examples = [
        RewriteExample(("Z", "A")[n % 2], f"t{n}", ("x", "y", "z")[n % 3], "classification") for n in range(12)
    ]
    dataset = PRewriteDataset.from_examples(examples)
    groups = dataset.by_instruction()
    assert list(groups) == ["Z", "A"]  # order of first appearance
    assert groups["A"].indices.tolist() == [1, 3, 5, 7, 9, 11]
    chosen = groups["A"].select([2, 0])
    assert chosen.indices.tolist() == [5, 1]
    assert [(e.input, e.choices) for e in chosen] == [("t5", ("x", "y", "z")), ("t1", ("x", "y", "z"))]
    with pytest.raises(IndexError):
        chosen[2]


def test_one_file_is_cut_60_20_20_and_recorded_by_rows_and_digest(tmp_path):
    path = write(tmp_path / "all.jsonl", labelled(50))
    splits = load_splits(path, seed=7)
    assert [len(part) for part in splits] == [30, 10, 10]
    record = json.loads(json.dumps(splits.to_json()))
    assert record["seed"] == 7 and record["dropped"] == {"train": 0, "dev": 0}
    assert record["test"] == {
        "count": 10,
        "source": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "skipped": {},
        "rows": splits.test.indices.tolist(),
    }
    assert load_splits(path, seed=7).to_json() == splits.to_json()


def test_a_folder_gives_its_files_whole(tmp_path):
    write(tmp_path / "train.jsonl", labelled(8, "train"))
    write(tmp_path / "validation.jsonl", labelled(5, "dev"))
    write(tmp_path / "test.jsonl", labelled(6, "test"))
    splits = load_splits(tmp_path)
    assert [len(part) for part in splits] == [8, 5, 6]
    assert [splits.to_json()[name]["rows"] for name in ("train", "dev", "test")] == ["all"] * 3
    assert splits.notes() == []


@pytest.mark.parametrize(("given", "sizes"), [("dev", [30, 10, 10]), ("test", [30, 10, 10])])
def test_the_missing_part_is_a_quarter_of_the_train_file(tmp_path, given, sizes):
    train = write(tmp_path / "train.jsonl", labelled(40))
    other = write(tmp_path / "other.jsonl", labelled(10, "other"))
    splits = load_splits(train, **{given: other})
    assert [len(part) for part in splits] == sizes
    assert splits.to_json()[given]["rows"] == "all"


def test_rows_of_train_and_dev_that_stand_in_a_later_split_are_left_out_and_counted(tmp_path):
    shared, twice = ("Shared TEXT", "common"), ("in both", "common")
    train = write(tmp_path / "train.jsonl", [("shared  text", "common"), twice, *labelled(8, "train")])
    dev = write(tmp_path / "dev.jsonl", [("SHARED text", "common"), twice, *labelled(8, "dev")])
    test = write(tmp_path / "test.jsonl", [shared, *labelled(4, "test")])
    splits = load_splits(train, dev=dev, test=test)
    assert dict(splits.dropped) == {"train": 2, "dev": 1}
    assert [len(part) for part in splits] == [8, 9, 5]
    assert splits.notes() == [
        "2 of the train rows left out: they stand in dev or test too",
        "1 of the dev rows left out: they stand in test too",
    ]
    assert splits.to_json()["train"]["rows"] == list(range(2, 10))


def test_the_same_file_twice_is_an_error(tmp_path):
    path = write(tmp_path / "train.jsonl", labelled(20))
    with pytest.raises(DataError, match="every train row is in dev or test too"):
        load_splits(path, test=path, dev=write(tmp_path / "dev.jsonl", labelled(5, "dev")))


def test_labels_are_those_of_train_and_dev_and_one_in_test_only_is_an_error(tmp_path):
    train = write(tmp_path / "train.jsonl", [("a", "x"), ("b", "y")])
    dev = write(tmp_path / "dev.jsonl", [("c", "z"), ("d", "x")])
    test = write(tmp_path / "test.jsonl", [("e", "x"), ("f", "x")])
    splits = load_splits(train, dev=dev, test=test)
    assert {example.choices for part in splits for example in part} == {("x", "y", "z")}
    assert {example.choices for example in splits.test} == {("x", "y", "z")}
    write(test, [("e", "x"), ("f", "new"), ("g", "newer")])
    with pytest.raises(DataError) as caught:
        load_splits(train, dev=dev, test=test)
    assert str(caught.value).startswith(f"{test}, line 2, field 'output': the label 'new' is in test only")
    assert "'x', 'y', 'z'" in str(caught.value) and "add a row with it to train, or give `choices`" in str(
        caught.value
    )
    write(test, [("f", "new")], choices=["x", "new"])
    assert load_splits(train, dev=dev, test=test).test[0].choices == ("x", "new")


def test_classification_rows_with_a_single_label_are_an_error(tmp_path):
    path = write(tmp_path / "r.jsonl", [(f"t{n}", "x") for n in range(10)])
    with pytest.raises(DataError, match="have the label 'x', but there must be two or more"):
        load_splits(path)
    assert len(load_splits(write(path, [(f"t{n}", "x") for n in range(10)], choices=["x", "y"])).train) == 6


def test_a_folder_without_train_or_with_two_is_an_error(tmp_path):
    write(tmp_path / "test.jsonl", labelled(4))
    with pytest.raises(DataError, match=r"holds test\.jsonl, but no train file"):
        load_splits(tmp_path)
    write(tmp_path / "train.jsonl", labelled(4))
    (tmp_path / "train.csv").write_text("instruction,input,output\n")
    with pytest.raises(DataError, match=r"holds train\.jsonl and train\.csv, but train must be one file"):
        load_splits(tmp_path)


def test_skipped_rows_are_in_the_notes_and_in_the_record(tmp_path):
    path = write(tmp_path / "r.jsonl", [*labelled(20), ("", "common")])
    splits = load_splits(path, skip_bad_rows=True)
    assert splits.to_json()["dev"]["skipped"] == {"input must not be blank": 1}
    (note,) = splits.notes()
    assert note.startswith(f"{path}: 1 bad rows left out: input must not be blank ({path}, line 21, field 'input'")


def test_the_built_in_data_have_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    splits = load_splits("demo")
    assert [len(part) for part in splits][2] == 217 and "Tell which team" in splits.train[0].instruction
