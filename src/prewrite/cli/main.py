"""`prewrite`: one file per command, imported when it is run.

To add one, write its file with `add_arguments` and `run`, and add its line to `COMMANDS`.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import logging
import os
import re
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from prewrite.cli.screen import without_keys_on_screen
from prewrite.errors import ConfigError, PrewriteError

COMMANDS = {
    "demo": "train, choose, test and report on the built-in data, offline",
    "search": "search a better prompt: wording, answer line, exemplars and label offsets",
    "ask": "answer inputs with a prompt.json",
    "export": "write a prompt for another tool: promptfoo, LangChain, DSPy, Ollama, Jinja",
    "save": "write a run's rewriter, prompt and model card into a folder for others",
    "push": "upload them to the Hugging Face hub",
    "train": "train a rewriter and test what it gains",
    "train-reward": "learn a reward model from a run's scored rollouts",
    "rewrite": "rewrite an instruction with a trained rewriter",
    "eval": "compare instructions on a data set, item by item",
    "serve": "the rewriter as an OpenAI-like endpoint, and a page that searches, on this machine",
    "report": "build the report of a run again",
    "explain": "the test rows that a run's prompt still gets wrong, by confusion",
    "compare": "several runs in one page",
    "watch": "the report of a running run, live, on this machine",
    "doctor": "check this machine and the task models that you name",
    "load": "load task models so that the first batch does not wait",
    "cache": "size of the answer cache, or clear it",
    "warm-start": "make a warm-start adapter for a rewriter",
    "completion": "the completion script of your shell",
}
BAD_INPUT, STOPPED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 2 bad input or a failed prerequisite, 130 stopped by a signal."""
    argv = list(sys.argv[1:] if argv is None else argv)
    with without_keys_on_screen(), terminated_as_interrupted():
        try:
            return _run(argv)
        except PrewriteError as error:
            print(f"error: {as_flags(str(error))}", file=sys.stderr)
            return BAD_INPUT
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            return STOPPED


_COLUMN_MAP = re.compile(r'column_map=\{("\w+": "[^"]+"(?:, "\w+": "[^"]+")*)\}')


def as_flags(message: str) -> str:
    """The message with arguments of Python in it as the flags that they are here.

    >>> as_flags('name it with column_map={"output": "label"}, or give one (instruction=)')
    'name it with --column-map output=label, or give one (--instruction TEXT)'
    """
    message = _COLUMN_MAP.sub(lambda found: "--column-map " + _pairs(found[1]), message)
    return message.replace("(instruction=)", "(--instruction TEXT)")


def _pairs(text: str) -> str:
    pairs = re.findall(r'"(\w+)": "([^"]+)"', text)
    return " ".join(f"{field}={shlex.quote(column) if ' ' in column else column}" for field, column in pairs)


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does: half-written files are removed, and how to go on is said."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


class _Parser(argparse.ArgumentParser):
    """Reports what it cannot read as every other bad input is reported."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def _run(argv: Sequence[str]) -> int:
    name = next((word for word in argv if not word.startswith("-")), None)
    if name is not None and name not in COMMANDS:
        raise ConfigError(f"{name!r} is no command{_meant(name, COMMANDS)}")
    parser, child = build_parser([name] if name is not None else [])
    flags = list(child[name]._option_string_actions) if name is not None else []  # argparse tells them in no other way
    namespace, unknown = parser.parse_known_args(argv)
    if unknown and unknown[0].startswith("-"):
        raise ConfigError(f"{unknown[0]!r} is no flag of prewrite {name}{_meant(unknown[0].partition('=')[0], flags)}")
    if unknown:
        raise ConfigError(f"prewrite {name} does not know what {unknown[0]!r} is; put it behind its flag, see --help")
    if namespace.version:
        import prewrite

        print(f"prewrite {prewrite.__version__}")
        return 0
    if namespace.command is None:
        parser.print_help()
        return 0
    _quiet_libraries()
    with telling(quiet=namespace.quiet):
        return int(namespace.execute(namespace, argv))


def build_parser(names: Iterable[str]) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser, and those of the commands by name; only those in `names`, whose modules it imports, are whole."""
    names = list(names)
    parser = _Parser(
        prog="prewrite",
        description="Train a small language model to rewrite prompts so that a frozen task model does better.",
        epilog="Example: prewrite train --data train.jsonl --task-model ollama:gemma3:4b --output-dir runs/first",
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="store_true", help="print the version")
    parser.add_argument("-q", "--quiet", action="store_true", help="print the result, warnings and errors alone")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    children: dict[str, argparse.ArgumentParser] = {}
    for command, text in COMMANDS.items():
        child = children[command] = commands.add_parser(
            command,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,  # the lines of an epilog stay lines
            allow_abbrev=False,
        )
        for spellings, told in ((("-V", "--version"), "print the version"), (("-q", "--quiet"), "no progress")):
            child.add_argument(*spellings, action="store_true", default=argparse.SUPPRESS, help=told)
        if command in names:  # only the command that runs pays for its imports
            module = importlib.import_module(f"prewrite.cli.{command.replace('-', '_')}")
            module.add_arguments(child)
            child.set_defaults(execute=module.run)
    return parser, children


@contextmanager
def telling(*, quiet: bool) -> Iterator[None]:
    """What the package tells of its progress goes to standard error in here; with `quiet` its warnings alone do."""
    logger = logging.getLogger("prewrite")
    handler, before = _ToScreen(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _ToScreen(logging.Handler):
    """Prints messages to what standard error is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def _meant(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else "; --help lists what there is"


def _quiet_libraries() -> None:
    """Progress bars and advice of libraries that a user of `prewrite` cannot act on."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)


if __name__ == "__main__":
    sys.exit(main())
