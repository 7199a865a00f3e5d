"""The demo's data: its size, balance, labels, and the separation of its splits."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

import prewrite

FOLDER = Path(prewrite.__file__).parent / "data" / "demo"
README = Path(__file__).resolve().parents[2] / "src" / "prewrite" / "data" / "demo" / "README.md"
SIZES = {"train": 301, "dev": 161, "test": 217}
LABELS = {"Payment", "Transport", "Exchange", "Account", "Website", "Repair", "Advice"}


def read(split: str) -> list[dict[str, str]]:
    with (FOLDER / f"{split}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


ROWS = {split: read(split) for split in SIZES}
ALL_ROWS = [row for rows in ROWS.values() for row in rows]


def tokens(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


@pytest.mark.parametrize("split", SIZES)
def test_a_split_has_its_documented_size(split: str) -> None:
    assert len(ROWS[split]) == SIZES[split]


def test_every_row_has_the_four_fields_as_trimmed_text() -> None:
    for row in ALL_ROWS:
        assert list(row) == ["instruction", "input", "output", "task"]
        assert all(isinstance(value, str) and value and value == value.strip() for value in row.values()), row
        assert "\n" not in row["input"]


def test_the_instruction_and_the_task_are_the_same_in_every_row() -> None:
    assert {row["instruction"] for row in ALL_ROWS} == {"Tell which team handles the customer's problem."}
    assert {row["task"] for row in ALL_ROWS} == {"classification"}


@pytest.mark.parametrize("split", SIZES)
def test_every_split_holds_each_label_within_a_fifth_of_an_even_share(split: str) -> None:
    counts = Counter(row["output"] for row in ROWS[split])
    assert set(counts) == LABELS
    share = len(ROWS[split]) / len(LABELS)
    assert all(abs(count - share) <= 0.2 * share for count in counts.values()), counts


def test_the_readme_explains_each_label_and_quotes_the_instruction() -> None:
    readme = README.read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", readme, flags=re.MULTILINE)) == LABELS
    assert f"`{ALL_ROWS[0]['instruction']}`" in readme


def test_no_two_messages_share_more_than_half_of_their_words() -> None:
    """Stricter than the usual limit of 0.8 for near duplicates, within splits as across them."""
    texts = [row["input"] for row in ALL_ROWS]
    words = [tokens(text) for text in texts]
    assert all(words), "a message without words"
    for (i, a), (j, b) in combinations(enumerate(words), 2):
        assert len(a & b) <= 0.5 * len(a | b), (texts[i], texts[j])


def test_messages_are_short_and_long() -> None:
    lengths = [len(row["input"].split()) for row in ALL_ROWS]
    assert min(lengths) <= 3
    assert max(lengths) >= 60


def test_the_label_word_alone_does_not_give_the_answer_away() -> None:
    """Naming a department's word is rare, and often a distractor: a keyword match must stay a poor router."""
    hits = sum(row["output"].lower() in row["input"].lower() for row in ALL_ROWS)
    assert hits / len(ALL_ROWS) < 0.1
