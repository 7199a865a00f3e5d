"""What is known of an OpenAI-compatible server; `openai_server.py` finds it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from prewrite.task_models.openai_api import Stamp, Told

NO_STAMP = Stamp()


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the probes found. `why_not` holds the reason for each feature that is missing."""

    completions: bool = False
    """POST /completions: bare prompts."""
    chat: bool = False
    """POST /chat/completions."""
    thinks: bool = False
    """In chat, the model was seen to think before it answers."""
    lists: bool = False
    """Several bare prompts in one request."""
    choice: bool = False
    """vLLM's `structured_outputs.choice`."""
    schema: str = ""
    """In chat, the kind of `response_format` whose schema is kept: `json_schema`, or llama.cpp's `json_object`."""
    echo: bool = False
    """Log-probabilities of a given text, and right ones."""
    echo_extra: int = 0
    """Tokens that follow the echoed ones."""
    tokenize: bool = False
    """POST /tokenize beside the API, of vLLM."""
    token_ids: bool = False
    """vLLM's `logprob_token_ids`: exact scores of single-token labels in one request."""
    top_logprobs: int = 0
    """Alternatives per token in chat, at most."""
    limit: str = "max_tokens"
    """In chat, the name of the output limit."""
    dropped: tuple[str, ...] = ()
    """Settings that the server refuses by name, and is not sent."""
    told: Told = field(default_factory=dict)
    """What the server tells of its model; `OpenAIApi.about_model`."""
    chat_stamp: Stamp = NO_STAMP
    completions_stamp: Stamp = NO_STAMP
    """What replies say of the model."""
    why_not: Mapping[str, str] = field(default_factory=dict)

    @property
    def greedy(self) -> bool:
        """Whether the model takes `temperature: 0`; some hosted models refuse it."""
        return "temperature" not in self.dropped

    @property
    def stamp(self) -> Stamp:
        """What replies say of the model, whichever endpoint they come from."""
        return Stamp(*(mine or theirs for mine, theirs in zip(self.chat_stamp, self.completions_stamp, strict=True)))

    def settings(self, tokens: int, *, chat: bool) -> dict[str, Any]:
        """Output limit and greedy decoding, in this server's words."""
        fields = {self.limit if chat else "max_tokens": tokens, "temperature": 0, "seed": 0}
        return {name: value for name, value in fields.items() if name not in self.dropped}

    def as_dict(self) -> dict[str, Any]:
        """JSON types; `ServerFacts.from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ServerFacts:
        """The facts that `as_dict` gave. Raises `TypeError` for those of another version."""
        stamps = {name: Stamp(*values[name]) for name in ("chat_stamp", "completions_stamp")}
        return cls(**{**values, **stamps, "dropped": tuple(values["dropped"])})
