"""What a person sees of a run and can do to it: the progress bar, and Ctrl-C."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from prewrite.train.algorithms import Trainer


@contextmanager
def training_bar(updates: int, *, shown: bool = True) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """The trainers' `progress`: a bar of updates with reward, KL and the last dev score; tqdm adds the time left."""
    with tqdm(total=updates, desc="training", unit="update", disable=not shown) as bar:
        dev = {}

        def show(step: int, metrics: dict[str, float]) -> None:
            if "dev/score" in metrics:
                dev["dev"] = f"{metrics['dev/score']:.3f}"
            bar.update(step - bar.n)
            bar.set_postfix({"reward": f"{metrics['reward/mean']:.3f}", "KL": f"{metrics['kl/mean']:.2f}", **dev})

        yield show


@contextmanager
def stop_on_interrupt(trainer: Trainer) -> Iterator[None]:
    """The first Ctrl-C ends the run after the running update, with a checkpoint; the second one at once."""

    def request_stop(signum: int, frame: Any) -> None:
        if trainer.stop_requested:
            raise KeyboardInterrupt
        trainer.stop_requested = True
        print("\nStopping after this update, with a checkpoint (Ctrl-C again: stop at once) ...", file=sys.stderr)

    try:
        previous = signal.signal(signal.SIGINT, request_stop)
    except ValueError:  # not the main thread, e.g. a notebook's worker: the caller's own handling stays
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
