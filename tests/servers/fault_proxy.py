"""A proxy that spoils a share of the answers, each in one of the ways that real servers and networks do."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections import Counter
from typing import Any

from servers.http_server import HTTPServer, Request, Response, as_json, head_of, send

FAULTS = (
    "latency",
    "rate_limit",
    "server_error",
    "truncated_json",
    "half_closed",
    "wrong_content_type",
    "empty_choices",
    "wrong_choice_count",
    "slow_drip",
    "refused",
)
DOWN_SECONDS = 0.4
"""How long connections are refused, once."""


class FaultProxy(HTTPServer):
    """Hands requests to `app` and spoils `share` of the POST answers, the kinds in turn.

    `latency` and `slow_drip` take `slow_seconds`; `passed` counts good answers, `faults` the spoiled ones by kind.
    Connections are refused once only: a server that is down often is down.
    """

    def __init__(
        self, app: Any, *, share: float, slow_seconds: float, seed: int = 0, faults: tuple[str, ...] = FAULTS
    ):
        super().__init__(app)
        self.share, self.slow_seconds, self.kinds = share, slow_seconds, faults
        self.random = random.Random(seed)
        self.faults: Counter[str] = Counter()
        self.passed = 0

    async def respond(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Forward, or spoil."""
        if request.method != "POST" or self.random.random() >= self.share:
            self.passed += 1
            await send(await self.handle(request), writer)
            return
        kind = self.kinds[sum(self.faults.values()) % len(self.kinds)]
        if kind == "refused" and self.faults["refused"]:
            kind = "server_error"
        self.faults[kind] += 1
        await self._spoil(kind, request, writer)

    async def _spoil(self, kind: str, request: Request, writer: asyncio.StreamWriter) -> None:
        if kind == "refused":
            threading.Thread(target=self._down, daemon=True).start()
            return
        if kind == "rate_limit":
            await send(as_json({"error": "slow down"}, 429, Retry_After="0.05"), writer)
            return
        if kind == "server_error":
            await send(as_json({"error": "internal"}, 500), writer)
            return
        if kind == "latency":
            await asyncio.sleep(self.slow_seconds)
        good = await self.handle(request)
        if kind == "half_closed":
            writer.write(head_of(good, len(good.body)) + good.body[: len(good.body) // 2])
            await writer.drain()
            writer.close()
        elif kind == "slow_drip":
            writer.write(head_of(good, len(good.body)))
            for at in range(len(good.body)):
                writer.write(good.body[at : at + 1])
                await writer.drain()
                await asyncio.sleep(self.slow_seconds / len(good.body))
        else:
            await send(_spoiled(kind, good), writer)

    def _down(self) -> None:
        self.refuse()
        threading.Event().wait(DOWN_SECONDS)
        self.listen()


def _spoiled(kind: str, good: Response) -> Response:
    if kind == "truncated_json":
        return Response(200, good.body[: len(good.body) // 2], good.content_type)
    if kind == "wrong_content_type":
        return Response(200, b"<html>Welcome to the proxy</html>", "text/html")
    if kind in ("empty_choices", "wrong_choice_count"):
        value = json.loads(good.body)
        if "choices" in value:
            value["choices"] = [] if kind == "empty_choices" else value["choices"] * 2
        else:  # Ollama's answers have no choices: leave out what takes their place
            value.pop("message", None), value.pop("response", None)
        return as_json(value)
    return good
