"""A model server that nobody here wrote, in a virtual environment of its own: started, waited for, and stopped."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class RealServer:
    """`with RealServer(...) as server: server.address`; ready on entry, stopped on exit.

    Args:
        command: the line that starts it.
        port: where it will listen, on this machine alone.
        health: the path that answers 200 once it is ready.
        environment: its variables.
        log: the file for what it prints; by default the screen.
        start_seconds: how long it may take to be ready.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        port: int,
        health: str,
        environment: Mapping[str, str],
        log: Path | None = None,
        start_seconds: float = 300,
    ):
        self.address = f"http://127.0.0.1:{port}/v1"
        self.command, self.environment, self.log, self.start_seconds = command, environment, log, start_seconds
        self._health = f"http://127.0.0.1:{port}{health}"

    def __enter__(self) -> RealServer:
        with self.log.open("w") if self.log else contextlib.nullcontext() as output:
            self.process = subprocess.Popen(
                self.command, env=dict(self.environment), stdout=output, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + self.start_seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}; see {self.log or 'above'}")
            try:
                with urllib.request.urlopen(self._health, timeout=2):
                    return self
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.5)
        self.__exit__()
        raise RuntimeError(f"the server was not ready within {self.start_seconds:.0f} s; see {self.log or 'above'}")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()


def new_venv(venv: Path) -> list[str | Path]:
    """Make a virtual environment; the line that installs into it."""
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    return [venv / "bin" / "python", "-m", "pip", "install", "--quiet"]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def offline() -> dict[str, str]:
    """This environment, without keys, and with nothing fetched or reported by libraries that ask for leave."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith(("_KEY", "_TOKEN", "_SECRET"))}
    return kept | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1"}


def run_script(
    description: str | None,
    install: Callable[[Path], None],
    serve: Callable[[argparse.Namespace], RealServer],
    *,
    port: int,
    add_arguments: Callable[[argparse.ArgumentParser], object] = lambda parser: None,
) -> None:
    """`SCRIPT install VENV` and `SCRIPT serve VENV --port N`, which runs until Ctrl-C."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["install", "serve"])
    parser.add_argument("venv", type=Path)
    parser.add_argument("--port", type=int, default=port)
    add_arguments(parser)
    args = parser.parse_args()
    if args.what == "install":
        install(args.venv)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # else the server would outlive this process
    with contextlib.suppress(KeyboardInterrupt), serve(args) as server:
        print(f"ready: {server.address}", flush=True)
        server.process.wait()
