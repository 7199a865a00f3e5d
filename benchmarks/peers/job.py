"""What `run.py` gives to the program of an arm, and what it gets back: two JSON files.

    python -m benchmarks.peers.NAME JOB RESULT

runs one peer in its own environment. This file is all that the two sides share, and imports nothing heavy.
"""

from __future__ import annotations

import json
import sys
import traceback
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers.speaker import Frame

from prewrite.scoring.answers import parse_answer
from prewrite.scoring.metrics import get_metric, metric_for
from prewrite.types import RewriteExample, Task

MARK = "\ue000"
"""Stands for the input while a prompt is put together; of the private use area, so no language has it."""


@dataclass(frozen=True)
class Job:
    """One search, whoever does it."""

    instruction: str
    labels: tuple[str, ...] | None
    task: Task | None
    train: tuple[tuple[str, tuple[str, ...]], ...]
    """(input, gold answers): what worked examples may come from."""
    dev: tuple[tuple[str, tuple[str, ...]], ...]
    """What candidates are scored on."""
    url: str
    """Of the endpoint; its models are `task` and `proposer`."""
    budget: int
    """Task calls that the search may make."""
    seed: int
    variant: str = ""
    """Which of the arms of a program."""
    frame: Frame = "chat"
    """How the task model reads messages. Bare text has to end in a cue: nothing else says where an answer starts."""

    def row(self, input: str, targets: Sequence[str]) -> RewriteExample:
        """A row as our own code knows it."""
        output = targets[0] if len(targets) == 1 else tuple(targets)
        return RewriteExample(self.instruction, input, output, task=self.task, choices=self.labels)

    def read(self, output: str, input: str, targets: Sequence[str]) -> tuple[str, float]:
        """The answer in the text and its score, by the same reading and metric for every arm."""
        row = self.row(input, targets)
        prediction = parse_answer(output, row)
        return prediction, get_metric(metric_for(row.task))(prediction, row.targets)


@dataclass(frozen=True)
class GappedMessage:
    """A chat message; the input stands between each two of `texts`."""

    role: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What a search found."""

    messages: tuple[GappedMessage, ...]
    """The prompt, as the endpoint is sent it."""
    start: tuple[GappedMessage, ...]
    """The initial instruction in the same frame: where the search began."""
    changed: bool
    """Whether anything else than the start was found to be better."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What the table says beside the figures: proposals seen and accepted, settings."""
    crash: str = ""
    """How the search ended, where that was not its own end."""
    end: str = ""
    """What ends an answer in the tool's own form, where that is no line that all readings know."""


def gapped(messages: Sequence[dict[str, Any]]) -> tuple[GappedMessage, ...]:
    """Messages with `MARK` for the input, as messages with gaps."""
    return tuple(GappedMessage(one["role"], tuple(str(one["content"]).split(MARK))) for one in messages)


def filled(messages: Sequence[GappedMessage], input: str) -> list[dict[str, str]]:
    """The messages for one input."""
    return [{"role": one.role, "content": input.join(one.texts)} for one in messages]


def write_job(job: Job, path: Path) -> None:
    """`job` as a file."""
    path.write_text(json.dumps(asdict(job), ensure_ascii=False), encoding="utf-8")


def read_job(path: Path) -> Job:
    """The job in a file of `write_job`."""
    told = json.loads(path.read_text(encoding="utf-8"))
    for part in ("train", "dev"):
        told[part] = tuple((input, tuple(targets)) for input, targets in told[part])
    told["labels"] = tuple(told["labels"]) if told["labels"] else None
    return Job(**told)


def write_result(result: Result, path: Path) -> None:
    """`result` as a file."""
    path.write_text(json.dumps(asdict(result), ensure_ascii=False), encoding="utf-8")


def read_result(path: Path) -> Result:
    """The result in a file of `write_result`."""
    told = json.loads(path.read_text(encoding="utf-8"))
    for part in ("messages", "start"):
        told[part] = tuple(GappedMessage(one["role"], tuple(one["texts"])) for one in told[part])
    return Result(**told)


def cued(text: str) -> str:
    """An input as our own prompts end: with the cue after which the answer is due."""
    return f"Input: {text}\nOutput:"


def unchanged(job: Job, crash: str, notes: dict[str, Any] | None = None) -> Result:
    """What an arm that crashed leaves: the initial instruction as our own prompts begin."""
    start = gapped([{"role": "user", "content": f"{job.instruction}\n\n{cued(MARK)}"}])
    return Result(start, start, changed=False, notes=notes or {}, crash=crash)


def counts(url: str) -> dict[str, dict[str, int]]:
    """What the endpoint has counted so far in this run."""
    with urllib.request.urlopen(f"{url}/counts", timeout=60) as told:
        found: dict[str, dict[str, int]] = json.load(told)
    return found


def ask(url: str, role: str, messages: Sequence[dict[str, str]], *, tokens: int, temperature: float = 0.0) -> str:
    """One answer of the endpoint, for tools that take a function."""
    body = {"model": role, "messages": list(messages), "max_tokens": tokens, "temperature": temperature}
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as told:
        return str(json.load(told)["choices"][0]["message"]["content"])


def run_program(search: Callable[[Job], Result]) -> None:
    """The main function of every peer's program: JOB in, RESULT out. A crash is a result, with its message."""
    job = read_job(Path(sys.argv[1]))
    try:
        result = search(job)
    except Exception as error:  # a peer may raise anything; what it raised belongs into the table
        traceback.print_exc()
        result = unchanged(job, f"{type(error).__name__}: {str(error)[:300]}")
    write_result(result, Path(sys.argv[2]))
