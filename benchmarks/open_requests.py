"""A thousand requests open at once against a server that spoils some answers: what gets through, and what it takes.

Run: python benchmarks/open_requests.py [--open 16 128 1000] [--share 0.1] [--delay 0.5]

The server is a process of its own, so that memory, open files and CPU seconds are the client's. It answers each
request after `--delay` seconds, as a model with room for all of them would, and the proxy of the tests in front of it
spoils a share of the answers in ten ways: refused connections, HTTP 429 and 500, cut-off JSON, bytes that drip.
A lost answer is one that is missing or is another prompt's; there must be none.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

PER_SLOT = 10
"""Prompts for each request that may be open."""


class Figures(NamedTuple):
    """What a run took; memory in MB."""

    seconds: float
    cpu_seconds: float
    memory_before: float
    memory_peak: float
    most_files: int
    calls: int
    lost: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--open", type=int, nargs="+", default=[16, 128, 1000], help="requests open at a time")
    parser.add_argument("--share", type=float, default=0.1, help="of the answers that are spoiled (default: 0.1)")
    parser.add_argument("--delay", type=float, default=0.5, help="seconds that the server takes (default: 0.5)")
    parser.add_argument(
        "--per-slot", type=int, default=PER_SLOT, help=f"prompts per open request (default: {PER_SLOT})"
    )
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)  # the server's process
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.delay)
        return
    print(
        f"{'open':>5} {'spoiled':>7} {'prompts':>8} {'seconds':>8} {'answers/s':>9} {'CPU s':>6} {'calls':>7} "
        f"{'peak MB':>8} {'more MB':>8} {'files':>6} {'reached':>7} {'lost':>5}"
    )
    for at_once in arguments.open:
        for share in dict.fromkeys((0.0, arguments.share)):
            prompts = [f"prompt number {number}" for number in range(at_once * arguments.per_slot)]
            figures, reached = against_server(prompts, at_once, share, arguments.delay)
            print(
                f"{at_once:5} {share:7.0%} {len(prompts):8,} {figures.seconds:8.1f} "
                f"{len(prompts) / figures.seconds:9,.0f} {figures.cpu_seconds:6.1f} {figures.calls:7,} "
                f"{figures.memory_peak:8,.0f} {figures.memory_peak - figures.memory_before:8,.0f} "
                f"{figures.most_files:6,} {reached:7,} {figures.lost:5}",
                flush=True,
            )


def against_server(prompts: list[str], at_once: int, share: float, delay: float) -> tuple[Figures, int]:
    """The figures of a run, and the most requests that the server had open."""
    command = [sys.executable, __file__, "--serve", "--delay", str(delay)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        url = server.stdout.readline().strip()
        with tempfile.TemporaryDirectory() as folder:
            figures = ask(prompts, f"{url}/v1", at_once, Path(folder), lambda: tell(server, share))
        server.stdin.close()
        return figures, int(server.stdout.readline())


def tell(server: subprocess.Popen[str], share: float) -> None:
    """Have the server spoil `share` of its answers from now on: it is asked what it can do before."""
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(f"{share}\n")
    server.stdin.flush()
    server.stdout.readline()


def serve(delay: float) -> None:
    """Print the address, take the share of spoiled answers, and at the end print how many requests were open."""
    from servers.fault_proxy import FaultProxy
    from servers.openai_server import OpenAIApp

    app = OpenAIApp(can=frozenset({"completions"}))
    with FaultProxy(app, share=0.0, slow_seconds=2 * delay) as proxy:
        print(proxy.url, flush=True)
        proxy.share = float(sys.stdin.readline())
        app.answer_seconds, proxy.most_open = delay, 0
        print("ready", flush=True)
        sys.stdin.read()
        print(proxy.most_open, flush=True)


def ask(prompts: list[str], address: str, at_once: int, folder: Path, ready: Callable[[], None]) -> Figures:
    """Ask for all of them through the package's own pool, cache and counts."""
    from prewrite.task_models.cache import AnswerCache
    from prewrite.task_models.openai import OpenAITaskModel
    from prewrite.task_models.registry import wrap_task_model
    from servers.openai_server import answer_to

    backend = OpenAITaskModel(
        "toy", address=address, concurrency=at_once, prompts_per_request=1, timeout=60, remember=False
    )
    backend.load()
    ready()
    task_model = wrap_task_model(backend, cache=AnswerCache(folder / "answers.sqlite"))
    process, ended, most = psutil.Process(), threading.Event(), {"memory": 0, "files": 0}
    before = process.memory_info().rss

    def watch() -> None:
        while not ended.wait(0.05):
            most["memory"] = max(most["memory"], process.memory_info().rss)
            most["files"] = max(most["files"], process.num_handles() if os.name == "nt" else process.num_fds())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started, cpu = time.perf_counter(), time.process_time()
    try:
        answers = task_model.generate(prompts)
    finally:
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        ended.set()
        watcher.join()
    backend.close()
    lost = sum(answer != answer_to(prompt) for prompt, answer in zip(prompts, answers, strict=True))
    return Figures(seconds, cpu, before / 1e6, most["memory"] / 1e6, most["files"], task_model.usage.calls, lost)


if __name__ == "__main__":
    main()
