"""The endpoints of an Ollama server, and what it tells of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prewrite.errors import ModelNotFoundError, TaskModelError
from prewrite.task_models.retry import AttemptFailed, NotFound, Refused
from prewrite.task_models.server import Connection, named_field

_OPTIONAL = ("truncate", "keep_alive")
"""Fields of a request that change no answer."""


@dataclass(frozen=True, slots=True)
class OllamaFacts:
    """What the server says about itself and the model."""

    version: str
    digest: str
    """Of the model's files, so that a re-pulled tag is another model; empty where the server lists none."""
    thinks: bool
    elsewhere: str
    """The host that a cloud model really runs on; empty for a model on this server."""


class OllamaApi:
    """One model on one server."""

    def __init__(self, connection: Connection, model: str):
        self.connection, self.model, self.address = connection, model, connection.address
        self._dropped: set[str] = set()

    async def post(self, client: Any, path: str, body: Mapping[str, Any]) -> Any:
        """POST without the fields that this server refuses by name and that change no answer."""
        url = f"{self.address}/api/{path}"
        while True:
            sent = {name: value for name, value in body.items() if name not in self._dropped}
            try:
                return await self.connection.fetch(client, url, sent)
            except Refused as error:
                name = named_field(error, [name for name in _OPTIONAL if name in sent])
                if name is None:
                    raise
                self._dropped.add(name)

    async def load(self, client: Any, *, keep_alive: str | float, num_ctx: int) -> None:
        """Load the model into the server's memory."""
        loading = {"model": self.model, "stream": False, "keep_alive": keep_alive}
        body = loading | {"options": {"num_ctx": num_ctx}}
        await self.post(client, "generate", body)

    async def listed(self, client: Any) -> dict[str, str]:
        """Digest by name of the models on the server; a name that ends in :latest is there without it too."""
        told = await self.connection.fetch(client, f"{self.address}/api/tags")
        entries = told.get("models") if isinstance(told, dict) else None
        if not isinstance(entries, list):
            raise self._not_ollama("GET /api/tags lists no models")
        models = [entry for entry in entries if isinstance(entry, dict)]
        named = {str(entry.get("model") or entry.get("name")): str(entry.get("digest") or "") for entry in models}
        return named | {name.removesuffix(":latest"): digest for name, digest in named.items()}

    async def facts(self, client: Any) -> OllamaFacts:
        """What the server says of itself and the model.

        Raises `TaskModelError` for another kind of server, `ModelNotFoundError` with the line that pulls the model.
        """
        try:
            told = await self.connection.fetch(client, f"{self.address}/api/version")
        except NotFound as error:
            raise self._not_ollama(f"GET /api/version gave {error}") from None
        except AttemptFailed as error:
            if error.status is not None or "JSON" not in str(error):
                raise
            raise self._not_ollama(f"GET /api/version: {error}") from None
        if not isinstance(told, dict) or not isinstance(told.get("version"), str):
            raise self._not_ollama("GET /api/version tells no version")
        listed = await self.listed(client)
        try:
            shown = await self.connection.fetch(client, f"{self.address}/api/show", {"model": self.model})
        except NotFound:
            have = ", ".join(sorted(name for name in listed if f"{name}:latest" not in listed)) or "none"
            raise ModelNotFoundError(
                f"model {self.model!r} is not on the Ollama server at {self.address} (it has: {have}); "
                f"run `ollama pull {self.model}`"
            ) from None
        can: Sequence[Any] = shown.get("capabilities") or []
        elsewhere = str(shown.get("remote_host") or "")
        return OllamaFacts(told["version"], listed.get(self.model, ""), "thinking" in can, elsewhere)

    def _not_ollama(self, what: str) -> TaskModelError:
        return TaskModelError(
            f"{self.address} does not speak Ollama's API ({what}); give the address of an Ollama server, or use "
            "openai:MODEL@ADDRESS/v1"
        )
