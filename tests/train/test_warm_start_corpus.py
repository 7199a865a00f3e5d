"""The warm-start corpus keeps the rules of docs/warm_start_corpus.md."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    json.loads(line)
    for line in (ROOT / "src/prewrite/train/warm_start.jsonl").read_text(encoding="utf-8").splitlines()
]
BENCHMARKS = sorted((ROOT.parent / "shared/data").glob("*/*.jsonl"))
DEMO_DATA = sorted((ROOT / "src/prewrite/data/demo").glob("*.jsonl"))
COMMON_LABELS = {"positive", "negative"}


def normalised(text: str) -> str:
    """Letters and digits only, in lower case, so that punctuation and spacing cannot hide a copy."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def names(label: str, text: str) -> bool:
    """Whether the label stands in the text as whole words, in the same case."""
    return re.search(rf"(?<!\w){re.escape(label)}(?!\w)", text) is not None


def broken(rule) -> list[str]:
    """The rewrites that break a rule, so that a failure prints them."""
    return [row["rewrite"] for row in ROWS if not rule(row)]


def test_there_are_enough_pairs_and_several_rewrites_per_instruction():
    per_instruction = Counter(row["instruction"] for row in ROWS)
    assert len(ROWS) >= 360
    assert len(per_instruction) >= 130
    assert min(per_instruction.values()) >= 2
    assert sum(count >= 3 for count in per_instruction.values()) >= 0.5 * len(per_instruction)


def test_every_row_has_the_fields_and_no_others():
    for row in ROWS:
        assert set(row) - {"labels"} == {"instruction", "rewrite", "kind"}, row
        assert all(
            isinstance(row[name], str) and row[name] == row[name].strip() != "" for name in row.keys() - {"labels"}
        )
        assert "labels" not in row or len(set(row["labels"])) == len(row["labels"]) >= 2, row


def test_kinds_of_task_are_covered_in_proportion():
    share = {kind: count / len(ROWS) for kind, count in Counter(row["kind"] for row in ROWS).items()}
    assert set(share) == {
        *("classification", "qa", "math", "extraction", "translation", "transformation"),
        *("summarisation", "formatting", "rating", "sorting", "code"),
    }
    assert 0.4 <= share["classification"] <= 0.55
    assert 0.1 <= share["qa"] <= 0.2
    assert 0.07 <= share["math"] <= 0.15


def test_the_document_states_the_counts_of_the_file():
    text = (ROOT / "docs/warm_start_corpus.md").read_text(encoding="utf-8")
    stated = {kind: int(count) for kind, count in re.findall(r"^\| `(\w+)` \| (\d+) \|$", text, re.M)}
    assert stated == Counter(row["kind"] for row in ROWS)
    assert f"holds {len(ROWS)} pairs" in text
    assert f"{len({row['instruction'] for row in ROWS})}\ndistinct instructions" in text


def test_rewrites_are_short_plain_text_that_ends_properly():
    assert broken(lambda row: 8 <= len(row["rewrite"].split()) <= 45) == []
    assert broken(lambda row: 1 <= len(re.findall(r"[.?!:](?=\s|$)", row["rewrite"])) <= 4) == []
    assert broken(lambda row: len(re.split(r"(?<=[.?!])\s+", row["rewrite"])) <= 3) == []
    assert broken(lambda row: row["rewrite"][-1] in ".?!:") == []
    assert (
        broken(lambda row: row["rewrite"].isascii() and not re.search(r'["*`#{}\[\]<>\n\t]|  ', row["rewrite"])) == []
    )
    assert broken(lambda row: row["rewrite"][0].isupper() or row["rewrite"][0].isdigit()) == []


def test_rewrites_do_not_talk_about_rewriting():
    meta = re.compile(r"\b(rewrit\w*|rephras\w*|instructions?|prompts?|language model|as an ai|here is|sure,)", re.I)
    assert broken(lambda row: not meta.search(row["rewrite"])) == []


def test_no_pair_occurs_twice_and_no_rewrite_repeats_its_instruction():
    pairs = Counter((normalised(row["instruction"]), normalised(row["rewrite"])) for row in ROWS)
    assert [pair for pair, count in pairs.items() if count > 1] == []
    assert [pair for pair in pairs if pair[0] == pair[1]] == []


def test_labels_stand_verbatim_in_instruction_and_rewrite():
    assert sum("labels" in row for row in ROWS) >= 150
    lost = [
        (label, row["rewrite"])
        for row in ROWS
        for label in row.get("labels", [])
        if not (names(label, row["instruction"]) and names(label, row["rewrite"]))
    ]
    assert lost == []


def test_a_listed_choice_in_a_classification_instruction_is_declared_as_labels():
    listing = re.compile(r"\b[\w ]+, [\w ]+,? (?:or|and) \w+|\bas \w+ or \w+|: ?\w+, \w+")
    undeclared = {
        row["instruction"]
        for row in ROWS
        if row["kind"] == "classification" and listing.search(row["instruction"]) and "labels" not in row
    }
    assert undeclared == set()


def test_rewrites_open_and_close_in_many_ways():
    openings = Counter(tuple(row["rewrite"].lower().split()[:2]) for row in ROWS)
    assert len(openings) >= 200
    assert openings.most_common(1)[0][1] <= 0.1 * len(ROWS)
    endings = Counter(row["rewrite"][-1] for row in ROWS)
    assert endings["?"] >= 15
    assert endings[":"] >= 10
    assert len({len(row["rewrite"].split()) for row in ROWS}) >= 20


def test_rewrites_of_one_instruction_open_differently():
    groups = defaultdict(list)
    for row in ROWS:
        groups[row["instruction"]].append(tuple(row["rewrite"].lower().split()[:2]))
    assert [instruction for instruction, openings in groups.items() if len(set(openings)) < len(openings)] == []


@pytest.mark.parametrize(
    "files",
    [
        pytest.param(
            BENCHMARKS, id="benchmarks", marks=pytest.mark.skipif(not BENCHMARKS, reason="no benchmark data")
        ),
        pytest.param(DEMO_DATA, id="demo", marks=pytest.mark.skipif(not DEMO_DATA, reason="no demo data")),
    ],
)
def test_no_benchmark_instruction_or_label_set_occurs(files):
    ours = {normalised(row[name]) for row in ROWS for name in ("instruction", "rewrite")}
    label_sets = {frozenset(label.lower() for label in row["labels"]) for row in ROWS if "labels" in row}
    for file in files:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        instructions = {normalised(row["instruction"]) for row in rows if row.get("instruction")}
        assert instructions & ours == set(), file
        outputs = {row["output"].lower() for row in rows if isinstance(row.get("output"), str)}
        assert outputs == COMMON_LABELS or outputs not in label_sets, file
