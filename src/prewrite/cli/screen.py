"""What reaches the screen: first, where data go; and never a key."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import TracebackType
from typing import Any, TextIO

from prewrite.errors import without_keys


def say_where_data_go(task_model: str, *, rewriter: str = "") -> None:
    """The first line of a run, and one of a rewriter on a server; on standard error, by one process of several."""
    from prewrite.task_models.registry import destination, names_server, parse_task_model

    if os.environ.get("RANK", "0") == "0":
        spec = parse_task_model(task_model)
        print(f"Task model {spec}: {destination(spec)}.", file=sys.stderr)
        if names_server(rewriter):
            spec = parse_task_model(rewriter)
            print(f"Rewriter {spec}: {destination(spec, sent='instructions, and no rows,')}.", file=sys.stderr)


@contextmanager
def without_keys_on_screen() -> Iterator[None]:
    """Hides keys in all that is printed, logged and traced back in here, and in the traceback that ends Python."""
    sys.excepthook, threading.excepthook = _show_traceback, _show_thread_traceback
    with redirect_stdout(_Screen(sys.stdout)), redirect_stderr(_Screen(sys.stderr)):
        yield
    sys.excepthook, threading.excepthook = sys.__excepthook__, threading.__excepthook__


class _Screen:
    """A text stream that hides keys; all else is the stream's own."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(without_keys(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(without_keys("".join(traceback.format_exception(kind, error, trace))))


def _show_thread_traceback(told: threading.ExceptHookArgs) -> None:
    if told.exc_value is not None:
        _show_traceback(told.exc_type, told.exc_value, told.exc_traceback)
