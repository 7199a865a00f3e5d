"""What reaches the screen: first, where data go; never a key, and nothing that a terminal takes for a command."""

from __future__ import annotations

import os
import re
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
    """Hides keys in all that is printed, logged and traced back in here, and in the traceback that ends Python.

    Control characters, of which a model may write any, are shown as JSON writes them.
    """
    sys.excepthook, threading.excepthook = _show_traceback, _show_thread_traceback
    screens = _Screen(sys.stdout), _Screen(sys.stderr, returns=True)  # progress bars go back to the line's beginning
    with redirect_stdout(screens[0]), redirect_stderr(screens[1]):
        yield
    sys.excepthook, threading.excepthook = sys.__excepthook__, threading.__excepthook__


_CONTROL = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
"""What moves the cursor, changes colours, turns the direction of the text around, or is no character; not tab and line
feed. A terminal obeys such text: it could hide what a prompt says, or rename the window."""


def printable(text: str, *, returns: bool = False) -> str:
    r"""The text with control characters as JSON writes them, so that JSON stays the same JSON.

    >>> printable("a\x1b[2Jb\r"), printable("a\r", returns=True) == "a\r"
    ('a\\u001b[2Jb\\u000d', True)
    """
    return _CONTROL.sub(lambda found: found[0] if returns and found[0] == "\r" else f"\\u{ord(found[0]):04x}", text)


class _Screen:
    """A text stream that hides keys and shows control characters; all else is the stream's own."""

    def __init__(self, stream: TextIO, *, returns: bool = False):
        self._stream, self._returns = stream, returns

    def write(self, text: str) -> int:
        shown = printable(without_keys(text), returns=self._returns)
        try:
            self._stream.write(shown)
        except UnicodeEncodeError:  # a terminal of another encoding than UTF-8
            encoding = self._stream.encoding
            self._stream.write(shown.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(printable(without_keys("".join(traceback.format_exception(kind, error, trace)))))


def _show_thread_traceback(told: threading.ExceptHookArgs) -> None:
    if told.exc_value is not None:
        _show_traceback(told.exc_type, told.exc_value, told.exc_traceback)
