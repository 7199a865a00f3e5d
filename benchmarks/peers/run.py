"""prewrite and other tools that search for prompts, at equal numbers of questions to the same small model.

    python -m benchmarks.peers.run --data FOLDER_OF_DATA_SETS --output runs/peers.jsonl

A cell is a frame, a data set, a seed, a budget of task calls and an arm; it is one line of the output. The seed draws
train and dev rows from the data set's own, and is each tool's seed; test rows are the same for all. Finished cells are
not run again. `--datasets sst2 --seeds 0 --budgets 1000 --arms capo` is one cell; `--frame bare` sends the task model
bare text; `--table` only prints what is there, and `--plot FILE` draws accuracy against calls in that frame.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from benchmarks.peers import plot, table
from benchmarks.peers.arms import ARMS, ROOT, Arm, environments, megabytes, python_of
from benchmarks.peers.endpoint import Endpoint
from benchmarks.peers.endpoint_limits import TASK_TOKENS
from benchmarks.peers.job import GappedMessage, Job, Result, filled, read_result, unchanged, write_job
from benchmarks.peers.speaker import FRAMES, Speaker, rendered

from prewrite.data import load_splits
from prewrite.types import RewriteExample

DATA = "sst2,subj,demo,mr,agnews,sst5,ii_sentiment"
LIMIT = 1.25
"""Times the budget: task calls beyond that are refused, so that a tool that does not count comes to an end."""
HOURS = 1.0
"""A search that takes longer is ended."""


class Rows(NamedTuple):
    """The rows of one data set and seed, of one instruction; no two with the same input."""

    instruction: str
    train: list[RewriteExample]
    dev: list[RewriteExample]
    test: list[RewriteExample]


def main(argv: Sequence[str] | None = None, *, open_model: Callable[[], Speaker] | None = None) -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of folders with train, dev and test files")
    parser.add_argument("--datasets", default=DATA)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--budgets", default="1000")
    parser.add_argument("--frame", choices=FRAMES, default="chat", help="how the task model reads messages")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--train-rows", type=int, default=200)
    parser.add_argument("--dev-rows", type=int, default=100)
    parser.add_argument("--test-rows", type=int, default=200)
    parser.add_argument("--output", type=Path, required=True, help="JSONL file, one line a cell")
    parser.add_argument("--log", type=Path, help="JSONL file of every call at the endpoint")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--plot", type=Path, help="SVG file to draw")
    given = parser.parse_args(argv)
    if unknown := [name for name in given.arms.split(",") if name not in ARMS]:
        parser.error(f"arm {unknown[0]!r} is unknown; choose from {', '.join(ARMS)}")
    if not given.table:
        run_missing(given, open_model or open_embedded)
    cells = table.read(given.output)
    print(table.write(cells))
    if given.plot is not None:
        given.plot.write_text(plot.draw(cells, given.frame), encoding="utf-8")


def open_embedded() -> Speaker:
    """The embedded model."""
    import torch
    from benchmarks.peers.chat_model import ChatModel

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    return ChatModel("embedded")


def run_missing(given: argparse.Namespace, open_model: Callable[[], Speaker]) -> None:
    """Run every cell that is asked for and not there, with one model and one endpoint."""
    done = {table.key_of(cell) for cell in table.read(given.output)}
    wanted = [
        (name, seed, budget, arm)
        for budget in map(int, given.budgets.split(","))
        for seed in map(int, given.seeds.split(","))
        for name in given.datasets.split(",")
        for arm in given.arms.split(",")
        if (given.frame, name, seed, budget, arm) not in done
    ]
    if not wanted:
        return
    sizes = {name: megabytes(folder) for name, folder in environments().items()}
    with Endpoint(open_model(), frame=given.frame, log=given.log).serve() as endpoint:
        for name, seed, budget, arm in wanted:
            python = python_of(ARMS[arm].environment)
            if not ARMS[arm].ours and not python.exists():
                print(f"{arm} was not run: no {python}; make bench-peers-setup makes it", file=sys.stderr)
                continue
            rows = drawn(given, name, seed)
            cell = {"frame": given.frame, "data": name, "seed": seed, "budget": budget, "arm": arm}
            cell |= run_cell(endpoint, ARMS[arm], rows, budget, seed, log=given.output.with_suffix(".log"))
            cell["megabytes"] = sizes.get(ARMS[arm].environment)
            with given.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(cell, ensure_ascii=False) + "\n")
            print(
                f"{given.frame} {name} seed {seed} {budget} {arm}: {np.mean(cell['scores']):.3f}, "
                f"{cell['calls']} calls, {cell['seconds']} s {cell['crash']}",
                file=sys.stderr,
                flush=True,
            )


def run_cell(endpoint: Endpoint, arm: Arm, rows: Rows, budget: int, seed: int, *, log: Path) -> dict[str, Any]:
    """Search with one arm, then score what it found on the test rows."""
    first = rows.dev[0]
    train, dev = (tuple((row.input, row.targets) for row in part) for part in (rows.train, rows.dev))
    where = endpoint.url, budget, seed, arm.variant, endpoint.frame
    job = Job(rows.instruction, first.choices, first.task, train, dev, *where)
    endpoint.reset(limit=int(budget * LIMIT), seed=seed)
    started = time.perf_counter()
    if arm.likelihood:
        from benchmarks.peers import ours

        scored = ours.search_likelihood(job, rows.test)
        told = {"task": {"calls": scored.calls}}
        return {
            "scores": scored.scores.tolist(),
            "start_scores": scored.start.tolist(),
            "calls": scored.calls,
            "asked": told,
            "seconds": round(time.perf_counter() - started),
            "changed": bool(scored.notes.get("accepted")),
            "notes": scored.notes,
            "crash": "",
            "messages": None,
        }
    result = own(job, endpoint, seed) if arm.ours else of_peer(job, arm, log)
    seconds, told = time.perf_counter() - started, endpoint.told()
    return {
        "scores": measured(endpoint.model, job, result.messages, rows.test, end=result.end),
        "start_scores": measured(endpoint.model, job, result.start, rows.test, end=result.end),
        "calls": told["task"]["calls"],
        "asked": told,
        "seconds": round(seconds),
        "changed": result.changed,
        "notes": result.notes,
        "crash": result.crash,
        "messages": [asdict(one) for one in result.messages],
    }


def own(job: Job, endpoint: Endpoint, seed: int) -> Result:
    """One of our arms. What it asks to find out about the server is no part of the search, and not counted."""
    from benchmarks.peers import ours

    return ours.search(job, ready=lambda: endpoint.reset(limit=int(job.budget * LIMIT), seed=seed))


def of_peer(job: Job, arm: Arm, log: Path) -> Result:
    """One peer, in a process and an environment of its own; what it prints goes to the end of `log`."""
    with tempfile.TemporaryDirectory(prefix="prewrite-peers-") as folder:
        paths = Path(folder, "job.json"), Path(folder, "result.json")
        write_job(job, paths[0])
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "OMP_NUM_THREADS") if name in os.environ}
        # Both libraries look for things on the network as they start, and DSPy keeps answers on disk.
        quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HF_HUB_OFFLINE": "1", "DSPY_CACHEDIR": folder}
        with log.open("a", encoding="utf-8") as output:
            output.write(f"== {arm.name}, seed {job.seed}, {job.budget} calls\n")
            output.flush()
            try:
                ended = subprocess.run(
                    [python_of(arm.environment), "-m", f"benchmarks.peers.{arm.program}", *map(str, paths)],
                    cwd=ROOT,
                    env=kept | quiet | {"PYTHONUNBUFFERED": "1"},
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=HOURS * 3600,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return unchanged(job, f"did not end within {HOURS:g} h")
        if not paths[1].is_file():
            return unchanged(job, f"ended with code {ended.returncode} and no result")
        return read_result(paths[1])


def measured(
    model: Speaker, job: Job, messages: Sequence[GappedMessage], test: Sequence[RewriteExample], *, end: str = ""
) -> list[float]:
    """The score of a prompt on each test row, by the reading that every arm has. What is too long scores 0.

    `end` is a tool's own end of an answer; what follows it is not read.
    """
    prompts = [rendered(model, filled(messages, row.input), job.frame) for row in test]
    fitting = [at for at, length in enumerate(model.lengths(prompts)) if length + TASK_TOKENS <= model.context]
    answers = model.answers(
        [prompts[at] for at in fitting], limit=TASK_TOKENS, temperature=0.0, seeds=[0] * len(fitting)
    )
    texts = {
        at: answer.text.partition(end)[0] if end else answer.text for at, answer in zip(fitting, answers, strict=True)
    }
    return [
        round(job.read(texts[at], row.input, row.targets)[1], 4) if at in texts else 0.0 for at, row in enumerate(test)
    ]


def drawn(given: argparse.Namespace, name: str, seed: int) -> Rows:
    """Train and dev rows drawn by the seed from the data set's own, and the same test rows for every seed."""
    splits = load_splits("demo" if name == "demo" else str(given.data / name))
    test = without_repeats(splits.test)
    instruction = test[0].instruction
    taken = {row.input for row in test}
    pool = [row for row in without_repeats([*splits.train, *splits.dev]) if row.input not in taken]
    order = np.random.default_rng([seed, *b"peers"]).permutation(len(pool))
    dev_rows = min(given.dev_rows, len(pool) // 2)
    dev = [pool[at] for at in sorted(order[:dev_rows])]
    train = [pool[at] for at in sorted(order[dev_rows : dev_rows + given.train_rows])]
    shown = np.sort(np.random.default_rng(0).permutation(len(test))[: given.test_rows])
    return Rows(instruction, train, dev, [test[at] for at in shown])


def without_repeats(rows: Any) -> list[RewriteExample]:
    """The rows of the first instruction, each input once: one tool aligns rows by their input."""
    found: dict[str, RewriteExample] = {}
    for row in rows:
        found.setdefault(row.input, row)
    first = next(iter(found.values())).instruction
    return [row for row in found.values() if row.instruction == first]


if __name__ == "__main__":
    main()
