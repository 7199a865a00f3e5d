"""Many small tasks of text classification, our own, to train one rewriter on and to test it on tasks it never saw.

    python benchmarks/many_tasks.py --output runs/many_tasks

`seen` is one folder of train, dev and test rows of all seen tasks, one instruction a task; `unseen` has a folder a
task, of families of which no task is seen. Texts are composed from `many_tasks.yaml`, a family of tasks at a time, so
that the right label is known: a pool of templates has one meaning, and a task says which pools go by which label. The
same seed and rows give the same files.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from many_tasks_computed import computed_pools

SHARES = {"seen": {"train": 4, "dev": 1, "test": 1}, "unseen": {"train": 4, "dev": 6, "test": 12}}
"""Sixths of `--rows`: 60 rows are 40, 10 and 10 of a seen task, 40, 60 and 120 of an unseen one."""
TRIES = 400
"""Draws in a row that gave a text already there, after which a pool counts as used up."""


class Task(NamedTuple):
    """A way of asking about the texts of a family."""

    name: str
    family: str
    unseen: bool
    instruction: str
    pools: dict[str, list[str]]
    """Label to the templates of texts that it is right for."""
    slots: dict[str, list[str]]
    """What can stand for a {name} in a template."""


def main() -> None:
    """Write the tasks, and print how many there are."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder that `seen` and `unseen` are written to")
    parser.add_argument("--rows", type=int, default=60, help="rows of a seen task; an unseen one has 11/3 of them")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.rows < 12:
        parser.error(f"--rows is {given.rows}; give at least 12, so that every split has rows of every task")
    if (given.output / "seen").exists():
        parser.error(f"--output: there are tasks in {given.output} already; name another folder")
    tasks = load_tasks()
    made = {task.name: rows_of(task, given.rows, given.seed) for task in tasks}
    for task in tasks:
        if task.unseen:
            write(given.output / "unseen" / task.name, made[task.name])
    seen = [made[task.name] for task in tasks if not task.unseen]
    write(given.output / "seen", {split: [row for rows in seen for row in rows[split]] for split in SHARES["seen"]})
    for kind, unseen in (("seen", False), ("unseen", True)):
        found = [task for task in tasks if task.unseen == unseen]
        print(f"{kind}: {len(found)} tasks of {len({task.family for task in found})} families")


def write(folder: Path, splits: Mapping[str, Sequence[dict[str, object]]]) -> None:
    """One JSONL file a split."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def load_tasks() -> list[Task]:
    """All tasks in the order of the file. A line of its `tasks` is: instruction => label / label: pool + pool."""
    data = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    shared = {name: text.split(", ") for name, text in data["slots"].items()}
    computed, found = computed_pools(), []
    for family, parts in data["families"].items():
        pools = {name: text.splitlines() for name, text in parts.get("pools", {}).items()}
        pools |= computed.get(family, {})
        slots = shared | {name: text.split(", ") for name, text in parts.get("slots", {}).items()} | pools
        for at, line in enumerate(parts["tasks"].splitlines(), start=1):
            instruction, _, rest = line.partition(" => ")
            labels, _, narrower = rest.partition(" with ")
            own = dict(one.split("=") for one in narrower.split("; ")) if narrower else {}
            pairs = [(label, keys or label) for label, _, keys in (one.partition(": ") for one in labels.split(" / "))]
            texts = {label: [text for key in keys.split(" + ") for text in pools[key]] for label, keys in pairs}
            own_slots = slots | {name: text.split(", ") for name, text in own.items()}
            found.append(Task(f"{family}_{at}", family, bool(parts.get("unseen")), instruction, texts, own_slots))
    return found


def rows_of(task: Task, count: int, seed: int) -> dict[str, list[dict[str, object]]]:
    """Rows by split, labels in turn; fewer in each split where a label has not so many texts."""
    rng = random.Random(f"{seed} {task.name}")
    shares = SHARES["unseen" if task.unseen else "seen"]
    wanted = sum(share * count // 6 for share in shares.values())
    taken: set[str] = set()
    texts = [drawn(templates, task.slots, rng, taken) for templates in task.pools.values()]
    rows: list[dict[str, object]] = []
    while len(rows) < wanted:
        turn = [next(each, None) for each in texts]
        if None in turn:
            break
        rows += [
            {"instruction": task.instruction, "input": text, "output": label, "choices": list(task.pools)}
            for label, text in zip(task.pools, turn, strict=True)
        ]
    rows, scale = rows[:wanted], min(1, len(rows) / wanted)
    splits, start = {}, 0
    for split, share in shares.items():
        end = start + int(share * count // 6 * scale)
        splits[split] = rng.sample(rows[start:end], end - start)
        start = end
    return splits


def drawn(templates: list[str], slots: Mapping[str, list[str]], rng: random.Random, taken: set[str]) -> Iterator[str]:
    """Texts that are not `taken` yet, templates in turn, until there are no more."""
    failed, turn = 0, iter(())
    while failed < TRIES:
        template = next(turn, None)
        if template is None:
            turn = iter(rng.sample(templates, len(templates)))
            continue
        text = fill(template, slots, rng)
        failed = failed + 1 if text.casefold() in taken else 0
        if not failed:
            taken.add(text.casefold())
            yield text


def fill(template: str, slots: Mapping[str, list[str]], rng: random.Random) -> str:
    """The template with one of each [one|other], and something for each {slot}, not the same for it twice."""
    given: dict[str, list[str]] = {}

    def value(match: re.Match[str]) -> str:
        options = [one for one in slots[match[1]] if one not in given.setdefault(match[1], [])]
        given[match[1]].append(rng.choice(options))
        return given[match[1]][-1]

    while True:
        text = re.sub(r"\[([^\[\]]*\|[^\[\]]*)\]", lambda match: rng.choice(match[1].split("|")), template)
        text = re.sub(r"\{(\w+)\}", value, text)
        if text == template:
            return text[:1].upper() + text[1:] if text.endswith((".", "!", "?")) else text
        template = text


if __name__ == "__main__":
    main()
