"""The test servers with one reply put in by hand: a prompt that holds PROMPT gets it, all others as usual."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from servers.http_server import Request, Response
from servers.ollama_server import OllamaApp
from servers.openai_server import EVERYTHING, OpenAIApp

PROMPT = "Is this film review positive or negative?"


@dataclass
class Reply:
    """What is sent: `body` as JSON, or as it is where it is text."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        if isinstance(self.body, str):
            return Response(self.status, self.body.encode(), "text/plain", self.headers)
        return Response(self.status, json.dumps(self.body).encode(), "application/json", self.headers)


@dataclass
class OneReplyOpenAI(OpenAIApp):
    """`replies` are sent one after the other, the last of them for ever."""

    can: frozenset[str] = EVERYTHING - {"completions"}
    replies: list[Reply] = field(default_factory=list)
    sent: int = 0

    async def __call__(self, request: Request) -> Response:
        if self.replies and PROMPT.encode() in request.body and request.path.startswith("/v1/"):
            self.sent += 1
            return self.replies[min(self.sent, len(self.replies)) - 1].response()
        return await super().__call__(request)


@dataclass
class OneReplyOllama(OllamaApp):
    """`replies` as above."""

    replies: list[Reply] = field(default_factory=list)
    sent: int = 0

    async def __call__(self, request: Request) -> Response:
        if self.replies and PROMPT.encode() in request.body:
            self.requests.append(request.json())
            self.sent += 1
            return self.replies[min(self.sent, len(self.replies)) - 1].response()
        return await super().__call__(request)
