"""A live view: the report of a run in progress, served on loopback alone and refreshed by polling."""

from __future__ import annotations

import hashlib
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

from prewrite.errors import RunFolderError
from prewrite.report.loopback import HOST, port_error, why_refused
from prewrite.report.page import build_page
from prewrite.report.read import read_run
from prewrite.report.render import content_policy, render_html
from prewrite.run_folder import RunFolder

POLL_MS = 2_000
"""Time between two questions of the page; ten times the time that building takes where that is longer."""


class LivePage:
    """The page of a run folder, built again only when a file has changed."""

    def __init__(self, path: str | Path):
        self.folder = RunFolder.open(path)
        self.version = ""
        self.html = ""
        self.wait_ms = POLL_MS
        self._lock = Lock()

    def current_version(self) -> str:
        """Changes whenever a file that the report reads does."""
        run = self.folder
        files = (run.config, run.metrics, run.rollouts, run.rewrites, run.items, run.result)
        state = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists()]
        return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]

    def page(self) -> str:
        """The page as the files stand now."""
        with self._lock:
            version = self.current_version()
            if version != self.version:
                started = time.monotonic()
                self.html = render_html(build_page(read_run(self.folder.path)), live=version)
                self.wait_ms = max(POLL_MS, int(10_000 * (time.monotonic() - started)))
                self.version = version
            return self.html


def make_server(path: str | Path, port: int = 0) -> ThreadingHTTPServer:
    """A server on loopback; port 0 takes a free one. Raises `ConfigError` where the port is taken."""
    live = LivePage(path)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if (why := why_refused(self.headers.get("Host", ""), self.headers.get("Origin"))) is not None:
                self._send(403, "text/plain", why)
            elif self.path == "/version":
                answer: dict[str, Any] = {"version": live.current_version(), "wait_ms": live.wait_ms}
                self._send(200, "application/json", json.dumps(answer))
            elif self.path == "/":
                try:
                    self._send(200, "text/html", live.page())
                except RunFolderError as error:
                    self._send(500, "text/plain", f"error: {error}")
            else:
                self._send(404, "text/plain", "there is only /")

        def _send(self, status: int, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            if kind == "text/html":
                self.send_header("Content-Security-Policy", content_policy(live=True))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: a line per poll helps nobody."""

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        raise port_error(port, error) from None


def watch(path: str | Path, port: int = 8765) -> None:
    """Serve the live report until Ctrl-C, and print its address."""
    server = make_server(path, port)
    print(f"http://{HOST}:{server.server_address[1]}/  (Ctrl-C stops)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()
