"""What a person sees of a run and can do to it: the progress bar, and Ctrl-C or a polite kill (SIGTERM)."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from prewrite.train import processes
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
