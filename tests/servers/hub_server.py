"""A stand-in for the Hugging Face hub: one model repository, whose newest commit can move on, and what was asked.

Files can be sent to it too, by the hub's own client.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from urllib.parse import urlsplit

from servers.http_server import HTTPServer, Request, Response, as_json

TOKEN = "hf_of_the_tests"
"""Who may send files."""


class HubServer(HTTPServer):
    """`files` are those of the newest commit; `asked` are methods and paths."""

    def __init__(self, model: str, files: dict[str, bytes]):
        super().__init__(self._answer)
        self.model, self.files = model, files
        self.asked: list[tuple[str, str]] = []
        self.made: list[dict[str, object]] = []
        """What new repositories were asked for with."""

    @property
    def commit(self) -> str:
        """The newest commit's name; follows from its files, as git's."""
        return _digest(repr(sorted(self.files.items())).encode())

    async def _answer(self, request: Request) -> Response:
        path = urlsplit(request.path).path
        self.asked.append((request.method, path))
        if request.method == "POST":
            return self._take(path, request)
        if path.startswith(f"/api/models/{self.model}/tree/"):
            return as_json(
                [{"type": "file", "path": n, "size": len(c), "oid": _digest(c)} for n, c in self.files.items()]
            )
        if path.startswith(f"/api/models/{self.model}"):
            siblings = [{"rfilename": name} for name in self.files]
            return as_json({"id": self.model, "modelId": self.model, "sha": self.commit, "siblings": siblings})
        name = path.removeprefix(f"/{self.model}/resolve/").partition("/")[2]
        if not path.startswith(f"/{self.model}/resolve/") or name not in self.files:
            return as_json({"error": "Repository not found"}, 404, x_error_code="RepoNotFound")
        content = self.files[name]
        told = {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": self.commit}
        if request.method == "HEAD":
            return Response(200, b"", headers=told | {"X-Linked-Size": str(len(content))})
        return Response(200, content, headers=told)

    def _take(self, path: str, request: Request) -> Response:
        """What a client sends: a new repository, the question how to send files, and the files."""
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return as_json({"error": "Invalid username or password."}, 401)
        if path == "/api/repos/create":
            self.made.append(request.json())
            return as_json({"url": f"{self.url}/{self.model}", "id": self.model})
        if path == "/api/validate-yaml":
            return as_json({"errors": [], "warnings": []})
        if path.startswith(f"/api/models/{self.model}/preupload/"):
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in request.json()["files"]
            ]
            return as_json({"files": files})
        if path.startswith(f"/api/models/{self.model}/commit/"):
            sent = [json.loads(line) for line in request.body.splitlines() if line]
            files = {one["value"]["path"]: one["value"]["content"] for one in sent if one["key"] == "file"}
            self.files |= {name: base64.b64decode(content) for name, content in files.items()}
            return as_json({"commitUrl": f"{self.url}/{self.model}/commit/{self.commit}", "commitOid": self.commit})
        return as_json({"error": "Repository not found"}, 404, x_error_code="RepoNotFound")


class SilentHub(HubServer):
    """Takes requests and answers none."""

    async def respond(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Note what was asked, and say nothing."""
        self.asked.append((request.method, request.path))


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
