"""What a person sees of a run and can do to it: lines that move, and Ctrl-C or a polite kill (SIGTERM)."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from prewrite.task_models.counting import Usage
from prewrite.train import processes
from prewrite.train.algorithms import Trainer

TICK = 1.0
"""Seconds from one look of a line to the next."""


def hidden() -> bool | None:
    """What tqdm's `disable` is given: hidden under `--quiet`, and by None where standard error is no terminal."""
    return True if logging.getLogger("prewrite").level > logging.INFO else None


@contextmanager
def training_bar(
    updates: int, usage: Usage | None = None, *, shown: bool = True
) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """The trainers' `progress`: a bar of updates with reward, KL and the last dev score; tqdm adds the time left.

    Between two updates the questions to the task model move it, which `usage` counts.
    """
    with tqdm(total=updates, desc="training", unit="update", disable=hidden() if shown else True) as bar:
        told: dict[str, str] = {}

        def tick() -> None:
            asked = {"questions": f"{answered(usage):,}"} if usage is not None else {}
            bar.set_postfix({**told, **asked})

        def show(step: int, metrics: dict[str, float]) -> None:
            if "dev/score" in metrics:
                told["dev"] = f"{metrics['dev/score']:.3f}"
            told.update(reward=f"{metrics['reward/mean']:.3f}", KL=f"{metrics['kl/mean']:.2f}")
            bar.update(step - bar.n)
            tick()

        with ticking(tick, run=not bar.disable):
            yield show


@contextmanager
def phase_line(phase: str, usage: Usage | None = None) -> Iterator[None]:
    """A line on the screen that moves while a phase runs: how long it has, and how many questions it has asked."""
    with tqdm(desc=phase, unit=" questions", disable=hidden(), leave=False, bar_format=LINE) as bar:
        began = answered(usage)

        def tick() -> None:
            bar.n = answered(usage) - began
            bar.refresh()

        with ticking(tick, run=not bar.disable):
            yield


LINE = "{desc}: {elapsed}, {n_fmt}{unit}"


def answered(usage: Usage | None) -> int:
    """Questions that the task model, or the cache in its place, has answered so far."""
    return 0 if usage is None else usage.prompts


@contextmanager
def ticking(tick: Callable[[], None], *, run: bool) -> Iterator[None]:
    """Calls `tick` every `TICK` seconds, in a thread of its own, until the block ends."""
    ended = threading.Event()

    def go() -> None:
        while not ended.wait(TICK):
            tick()

    thread = threading.Thread(target=go, daemon=True)
    if run:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if run:
            thread.join()


@contextmanager
def stop_on_interrupt(trainer: Trainer) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the run after the running update, with a checkpoint; the second one at once.

    Of several processes each obeys Ctrl-C, which reaches all of them, and leaves SIGTERM to their launcher: it sends
    that when one of them has failed, and the others would wait for it in vain.
    """

    def request_stop(signum: int, frame: Any) -> None:
        if trainer.stop_requested:
            raise KeyboardInterrupt
        trainer.stop_requested = True
        print("\nStopping after this update, with a checkpoint (once more: stop at once) ...", file=sys.stderr)

    if threading.current_thread() is not threading.main_thread():  # a notebook's worker: the caller's handling stays
        yield
        return
    signals = [signal.SIGINT, signal.SIGTERM] if processes.count() == 1 else [signal.SIGINT]
    previous = {number: signal.signal(number, request_stop) for number in signals}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
