"""A stand-in for the Hugging Face hub: one model repository, whose newest commit can move on, and what was asked."""

from __future__ import annotations

import asyncio
import hashlib
from urllib.parse import urlsplit

from servers.http_server import HTTPServer, Request, Response, as_json


class HubServer(HTTPServer):
    """`files` are those of the newest commit; `asked` are methods and paths."""

    def __init__(self, model: str, files: dict[str, bytes]):
        super().__init__(self._answer)
        self.model, self.files = model, files
        self.asked: list[tuple[str, str]] = []

    @property
    def commit(self) -> str:
        """The newest commit's name; follows from its files, as git's."""
        return _digest(repr(sorted(self.files.items())).encode())

    async def _answer(self, request: Request) -> Response:
        path = urlsplit(request.path).path
        self.asked.append((request.method, path))
        if path.startswith(f"/api/models/{self.model}/tree/"):
            return as_json(
                [{"type": "file", "path": n, "size": len(c), "oid": _digest(c)} for n, c in self.files.items()]
            )
        if path.startswith(f"/api/models/{self.model}"):
            siblings = [{"rfilename": name} for name in self.files]
            return as_json({"id": self.model, "modelId": self.model, "sha": self.commit, "siblings": siblings})
        name = path.rpartition("/")[2]
        if not path.startswith(f"/{self.model}/resolve/") or name not in self.files:
            return as_json({"error": "Repository not found"}, 404, x_error_code="RepoNotFound")
        content = self.files[name]
        told = {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": self.commit}
        if request.method == "HEAD":
            return Response(200, b"", headers=told | {"X-Linked-Size": str(len(content))})
        return Response(200, content, headers=told)


class SilentHub(HubServer):
    """Takes requests and answers none."""

    async def respond(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Note what was asked, and say nothing."""
        self.asked.append((request.method, request.path))


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
