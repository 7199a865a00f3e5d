"""A small HTTP/1.1 server on asyncio streams, in a thread of its own: what the test servers are built on."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Request:
    """One request; `body` is the raw text."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Response:
    """A whole body, or `lines` that are sent one by one as chunks."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    lines: AsyncIterator[bytes] | None = None


def as_json(value: Any, status: int = 200, **headers: str) -> Response:
    return Response(status, json.dumps(value).encode(), "application/json; charset=utf-8", headers)


Handler = Callable[[Request], Awaitable[Response]]


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request of a connection, None at its end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, path, headers, body)


def head_of(response: Response, length: int | None) -> bytes:
    lines = [f"HTTP/1.1 {response.status} X", f"Content-Type: {response.content_type}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in response.headers.items()]
    lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class HTTPServer:
    """Serves `handle` on loopback; `with HTTPServer(handle) as server: server.url`. Port 0 takes a free one."""

    def __init__(self, handle: Handler, *, host: str = "127.0.0.1", port: int = 0):
        self.handle, self.host, self.port = handle, host, port
        self.open_now = 0
        self.most_open = 0
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def __enter__(self) -> HTTPServer:
        self._thread.start()
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)

    def listen(self) -> None:
        """Accept connections (again), always on the same port."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(timeout=10)

    def refuse(self) -> None:
        """Drop all connections and accept no more: what a stopped server looks like."""
        asyncio.run_coroutine_threadsafe(self._refuse(), self._loop).result(timeout=10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connection, self.host, self.port, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while (request := await read_request(reader)) is not None:
                self.open_now += 1
                self.most_open = max(self.most_open, self.open_now)
                try:
                    await self.respond(request, writer)
                finally:
                    self.open_now -= 1
                if writer.is_closing():
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away
        finally:
            self._writers.discard(writer)
            writer.close()

    async def respond(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Answer one request; the fault proxy does this otherwise."""
        await send(await self.handle(request), writer)


async def send(response: Response, writer: asyncio.StreamWriter) -> None:
    if response.lines is None:
        writer.write(head_of(response, len(response.body)) + response.body)
    else:
        writer.write(head_of(response, None))
        async for line in response.lines:
            writer.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
    await writer.drain()
