"""`prewrite serve`: an endpoint as OpenAI's for the rewriter, and a page that searches a prompt; on loopback alone."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prewrite import report
from prewrite.errors import ConfigError, PrewriteError, without_keys
from prewrite.report.loopback import HOST, port_error, why_refused
from prewrite.serve.chat import chunks, completion, read_chat, rewrites
from prewrite.serve.search import MOST_ROWS, Searches, Tell
from prewrite.text import parse_json

BUSY = "another search is running; wait until it ends, or stop it"
MOST_BYTES = 1_000_000
"""Of the body of a request."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HERE = Path(__file__).parent
FILES = {
    "/": HERE / "page.html",
    "/page.js": HERE / "page.js",
    "/page.css": HERE / "page.css",
    "/report.css": Path(report.__file__).parent / "style.css",
}


class Turn:
    """Whose turn it is to search: one at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stop = threading.Event()
        """Set to end the search that runs."""


def make_app(searches: Searches, turn: Turn) -> ASGIApp:
    """The application around a rewriter and its task models."""
    writer = searches.writer

    async def models(request: Request) -> Response:
        card = {"id": writer.name, "object": "model", "created": 0, "owned_by": "prewrite"}
        return JSONResponse({"object": "list", "data": [card]})

    async def chat(request: Request) -> Response:
        try:
            body = await read_body(request)
            if body.get("model") != writer.name:
                return api_error(404, f"the model here is {writer.name!r}", code="model_not_found")
            asked = read_chat(body)
        except ConfigError as error:
            return api_error(413 if isinstance(error, _TooLong) else 400, str(error))
        try:
            texts = await run_in_threadpool(rewrites, writer, asked)
        except PrewriteError as error:
            return api_error(502, without_keys(str(error)), kind="api_error")
        if not asked.stream:
            return JSONResponse(completion(writer, asked, texts))
        return events(_lines(chunks(writer, asked, texts)))

    async def about(request: Request) -> Response:
        told = {"rewriter": writer.name, "task_models": list(searches.evaluators), "calls": searches.calls}
        return JSONResponse({**told, "wordings": searches.num_candidates + 1, "most_rows": MOST_ROWS})

    async def search(request: Request) -> Response:
        try:
            wanted = searches.read(await read_body(request))
        except ConfigError as error:
            return JSONResponse({"error": str(error)}, 413 if isinstance(error, _TooLong) else 400)
        if turn.lock.locked():
            return JSONResponse({"error": BUSY}, 409)
        return events(_told(lambda tell, stop: searches.run(wanted, tell, stop), turn))

    async def file(request: Request) -> Response:
        return FileResponse(FILES[request.url.path])

    async def api_gone(request: Request, error: Exception) -> Response:
        return api_error(404, "there is /v1/models and /v1/chat/completions", code="unknown_url")

    routes = [Route(path, file) for path in FILES]
    routes += [Route("/about", about), Route("/search", search, methods=["POST"])]
    routes += [Route("/v1/models", models), Route("/v1/chat/completions", chat, methods=["POST"])]
    return LocalOnly(Starlette(routes=routes, exception_handlers={404: api_gone}))


class _TooLong(ConfigError):
    """A body beyond `MOST_BYTES`."""


async def read_body(request: Request) -> dict[str, Any]:
    """The JSON object in a request. Raises `ConfigError` for another body, or one that is too long."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise ConfigError("the body must be JSON, sent as application/json")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            raise _TooLong(f"the body has more than {MOST_BYTES:,} bytes")
        parts.append(part)
    try:
        body = parse_json(b"".join(parts))
    except ValueError as error:
        raise ConfigError(f"the body is not JSON ({error})") from None
    if not isinstance(body, dict):
        raise ConfigError("the body must be a JSON object")
    return body


def api_error(status: int, message: str, *, code: str | None = None, kind: str = "invalid_request_error") -> Response:
    """An error in the form of OpenAI's API."""
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)


def events(lines: AsyncIterator[str] | Iterator[str]) -> Response:
    """Server-sent events."""
    return StreamingResponse(lines, media_type="text/event-stream")


def _lines(objects: Iterator[dict[str, Any]]) -> Iterator[str]:
    yield from (_event(each) for each in objects)
    yield "data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"  # ASCII: no line break of any kind within


async def _told(run: Callable[[Tell, threading.Event], None], turn: Turn) -> AsyncIterator[str]:
    """What `run(tell, stop)` tells, as events, while it runs in a thread; `stop` is set when the client leaves."""
    if not turn.lock.acquire(blocking=False):
        yield _event({"event": "error", "message": BUSY})
        return
    loop, told, stop = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any] | None](), threading.Event()
    turn.stop = stop

    def tell(event: dict[str, Any] | None) -> None:
        with suppress(RuntimeError):  # the loop was closed: the server has ended, and nobody listens
            loop.call_soon_threadsafe(told.put_nowait, event)

    def work() -> None:
        try:
            run(tell, stop)
        except PrewriteError as error:
            tell({"event": "error", "message": without_keys(str(error))})
        finally:
            turn.lock.release()
            tell(None)

    threading.Thread(target=work).start()
    try:
        while (event := await told.get()) is not None:
            yield _event(event)
    finally:
        stop.set()


class LocalOnly:
    """Answers only what this machine's own page or programs ask, and says in each answer what a page may do."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"], headers["X-Content-Type-Options"] = POLICY, "nosniff"
                headers["Cache-Control"], headers["Referrer-Policy"] = "no-store", "no-referrer"
            await send(message)

        headers = Headers(scope=scope)
        why = why_refused(headers.get("host", ""), headers.get("origin"))
        answer = self.app if why is None else PlainTextResponse(why, 403)
        await answer(scope, receive, guarded)


def listen(port: int) -> socket.socket:
    """A socket on loopback; port 0 takes a free one. Raises `ConfigError` where the port cannot be used."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((HOST, port))
    except (OSError, OverflowError) as error:
        made.close()
        raise port_error(port, error) from None
    return made


class Server(uvicorn.Server):
    """Ends the search that runs before it waits for connections to close."""

    def __init__(self, turn: Turn, config: uvicorn.Config):
        super().__init__(config)
        self.turn = turn

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Part of uvicorn's way down."""
        self.turn.stop.set()
        await super().shutdown(sockets)


def make_server(searches: Searches) -> Server:
    """The server of the application; `run(sockets=[listen(port)])` runs it until Ctrl-C."""
    turn = Turn()
    return Server(
        turn,
        uvicorn.Config(
            make_app(searches, turn),
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            limit_concurrency=64,
            timeout_graceful_shutdown=5,
        ),
    )
