"""Trains the toy for minutes against an HTTP task model that spoils a tenth of its answers, and watches the process.

    python tests/reliability/soak.py --minutes 10

The first run goes through the proxy of `tests/servers/fault_proxy.py`: answers that come too late, 429, 500, cut
connections, half-written and wrong bodies. It meets its budget once and goes on with a higher one; after the minutes
it is stopped by Ctrl-C, and goes on to choice and test. The second run makes as many updates without a fault. Asked is
whether both ended the same, whether memory and open files grew after the first fifth, and whether a budget was
exceeded at the server. Memory grows for some 150 updates, so a run of less than five minutes fails. Linux only: memory
and files are read from /proc. The exit code is 0 where all of it holds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve()
FIRST_LIMIT, NO_LIMIT, NO_END = 2000, 9_000_000, 1_000_000
TIMEOUT, SLOW = 1.0, 2.0
"""Seconds: what the run waits for an answer, and what a slow one takes."""
MOST_GROWTH = 0.05
ROW = re.compile(r"\b(step|now) \d")
"""What every question about a row of the toy holds."""
FLAGS = ["--learning_rate", "1e-4", "--rewrites_per_step", "8", "--examples_per_rewrite", "8",
         "--response_length", "6", "--dev_examples", "6", "--save_steps", "20", "--eval_steps", "1",
         "--strategy", "S", "--guards", "none", "--search_calls", "120", "--num_candidates", "4"]  # fmt: skip


class Sample(NamedTuple):
    """The state of the process at one moment."""

    seconds: float
    memory: float
    """Resident, in MB."""
    files: int
    """Open ones, connections included."""


class Ended(NamedTuple):
    """How a process ended, and what was seen of it."""

    code: int
    screen: str
    samples: list[Sample]


def sample(pid: int, began: float) -> Sample | None:
    """None for a process that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        files = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None
    resident = next((line for line in status.splitlines() if line.startswith("VmRSS:")), None)
    return None if resident is None else Sample(time.monotonic() - began, int(resident.split()[1]) / 1000, files)


def run(argv: Sequence[str], folder: Path, *, stop_after: float | None = None) -> Ended:
    """`prewrite argv` in `folder`; Ctrl-C after `stop_after` seconds."""
    own = {"PREWRITE_ANSWER_CACHE": str(folder / "answers.sqlite"), "PREWRITE_CACHE_DIR": str(folder / "cache")}
    began, samples = time.monotonic(), list[Sample]()
    with (folder / "screen.log").open("ab") as screen:
        at = screen.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "prewrite", *argv], cwd=folder, env=os.environ | own, stdout=screen, stderr=screen
        )
        while process.poll() is None:
            if (found := sample(process.pid, began)) is not None:
                samples.append(found)
            if stop_after is not None and time.monotonic() - began > stop_after:
                process.send_signal(signal.SIGINT)
                stop_after = None
            time.sleep(1)
    return Ended(process.returncode, (folder / "screen.log").read_bytes()[at:].decode(), samples)


def growth(samples: Sequence[Sample]) -> tuple[Sample, Sample]:
    """The most of the second fifth of the time, after the warm-up, and the most of the last fifth."""
    end = samples[-1].seconds
    parts = [[found for found in samples if part <= 5 * found.seconds / end <= part + 1] for part in (1, 4)]
    first, last = (
        Sample(part[-1].seconds, max(found.memory for found in part), max(found.files for found in part))
        for part in parts
    )
    return first, last


def questions_in(path: str, body: bytes) -> int:
    """How many of the data's rows a request asks about; 0 where it asks for no answer, or what the server can do."""
    if path not in ("/v1/completions", "/v1/chat/completions"):
        return 0
    fields = json.loads(body)
    prompts = fields["prompt"] if "prompt" in fields else [fields["messages"][-1]["content"]]
    prompts = [prompts] if isinstance(prompts, str) or isinstance(prompts[0], int) else prompts
    return sum(not isinstance(prompt, str) or ROW.search(prompt) is not None for prompt in prompts)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="of training with faults (default: 10)")
    parser.add_argument("--share", type=float, default=0.1, help="of answers that are spoiled (default: 0.1)")
    parser.add_argument("--keep", type=Path, help="a new folder for what is written")
    given = parser.parse_args(argv)

    from kill import contents, make_toy

    from prewrite.task_models.ledger import read
    from servers.fault_proxy import FaultProxy
    from servers.http_server import Request
    from servers.openai_server import OpenAIApp

    class Counting(FaultProxy):
        """Counts the questions of all requests that arrive, answered or not."""

        asked = 0

        async def respond(self, request: Request, writer: asyncio.StreamWriter) -> None:
            self.asked += questions_in(request.path, request.body)
            await super().respond(request, writer)

    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="prewrite-soak-") as temporary:
        work = (given.keep or Path(temporary)).resolve()
        for name in ("faults", "none"):
            (work / name).mkdir(parents=True)
        make_toy(work)
        with Counting(OpenAIApp(), share=0, slow_seconds=SLOW) as proxy:
            toy, name = str(work / "model"), f"openai:toy@{proxy.url}/v1"
            train = ["train", "--output_dir", "run", *FLAGS, "--task_model", name, "--task_model_options",
                     f"timeout={TIMEOUT}", "--base_model", toy, "--fidelity_model", toy,
                     "--dataset", str(work / "one.jsonl")]  # fmt: skip

            def go(folder: str, updates: int, limit: int, *more: str, stop_after: float | None = None) -> Ended:
                """A part of a run, after which the server has had no question that the budget does not know of."""
                flags = ["--max_steps", str(updates), "--max_task_calls", str(limit), *more]
                ended = run([*train, *flags], work / folder, stop_after=stop_after)
                known = read(work / folder / "run" / "budget.bin").calls
                if not proxy.asked <= known <= limit:
                    wrong.append(f"{proxy.asked} questions reached the server, {known} are known, {limit} allowed")
                return ended

            for folder in ("faults", "none"):  # what the server can do is found out, and remembered
                run(["load", name], work / folder)
            proxy.asked, proxy.share = 0, given.share
            first = go("faults", NO_END, FIRST_LIMIT)
            if first.code != 2 or f"max_task_calls is {FIRST_LIMIT:,}" not in first.screen:
                wrong.append(f"the budget did not end the run:\n{first.screen[-2000:]}")
            long = go("faults", NO_END, NO_LIMIT, "--resume", stop_after=60 * given.minutes)
            if long.code != 130:
                wrong.append(f"the long run ended with {long.code}:\n{long.screen[-2000:]}")
            lines = (work / "faults" / "run" / "metrics.jsonl").read_text().splitlines()
            updates = json.loads(lines[-1])["step"]
            last = go("faults", updates, NO_LIMIT, "--resume")
            faults, asked = dict(proxy.faults), proxy.asked
            proxy.asked = proxy.share = 0
            plain = go("none", updates, NO_LIMIT)
        for ended in (last, plain):
            if ended.code:
                wrong.append(f"a run ended with {ended.code}:\n{ended.screen[-2000:]}")
        if not wrong:
            with_faults, without = contents(work / "faults" / "run"), contents(work / "none" / "run")
            wrong += [f"{name} differs" for name in without if with_faults.get(name) != without[name]]
        said = [json.loads(line) for line in (work / "faults" / "run" / "metrics.jsonl").read_text().splitlines()]

    print(f"{updates} updates, {asked:,} questions at the server, {sum(faults.values())} answers spoiled: {faults}")
    print(f"time at the task model: {sum(row.get('time/score', 0) for row in said):.0f} s")
    for at in range(0, len(long.samples), max(1, len(long.samples) // 12)):
        print("{:7.0f} s {:8.1f} MB {:4d} files".format(*long.samples[at]))
    before, after = growth(long.samples)
    print(f"memory {before.memory:.1f} -> {after.memory:.1f} MB, open files {before.files} -> {after.files}")
    if after.memory > before.memory * (1 + MOST_GROWTH):
        wrong.append(f"memory grew by more than {MOST_GROWTH:.0%}")
    if after.files > before.files:
        wrong.append("the number of open files grew")
    print("the same result as without faults, and no budget exceeded" if not wrong else "\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parent), str(HERE.parents[1]), str(HERE.parents[2] / "examples")]
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
