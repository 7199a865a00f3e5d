"""A server that speaks OpenAI's completions and chat API, with the parts switched on that a test wants.

It answers by a fixed function of the prompt, fast enough to be asked 10,000 times. Its "tokens" are words with the
space before them, so tokenising and echoed log-probabilities can be checked by hand. `vllm_server.py` is the real one.

    python tests/servers/openai_server.py --port 8000 --delay 0.05
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import threading
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import contextlib

from servers.http_server import HTTPServer, Request, Response, as_json

EVERYTHING = frozenset(
    {"completions", "chat", "lists", "echo", "tokenize", "token_ids", "choice", "json_schema", "top"}
)


def words(text: str) -> list[str]:
    """The tokens: runs of non-space with the one space before them; other white space alone."""
    return re.findall(r" ?[^\s]+|\s", text)


def word_id(word: str) -> int:
    return zlib.crc32(word.encode()) % 50_000


def logprob(context: str, word: str) -> float:
    """A fixed log-probability of `word` after `context`, in [-5, -1]."""
    return -1 - 4 * (zlib.crc32((context + "|" + word).encode()) % 1000) / 1000


def answer_to(prompt: str) -> str:
    """What the model writes: one word that depends on the whole prompt."""
    return f" w{zlib.crc32(prompt.encode()) % 1000}"


@dataclass
class OpenAIApp:
    """`can` switches features; `shifted` makes the echo wrong by one token, as one popular server does.

    `hosted` refuses `max_tokens` and `temperature` in chat, as some hosted models do; `key` is required where set.
    """

    model: str = "toy"
    can: frozenset[str] = EVERYTHING
    shifted: bool = False
    hosted: bool = False
    key: str | None = None
    answer_seconds: float = 0.0
    asked: list[str] = field(default_factory=list)
    messages: list[list[dict[str, str]]] = field(default_factory=list)
    """What each request for a chat, or for a chat's tokens, held."""
    texts: dict[tuple[int, ...], str] = field(default_factory=dict)

    async def __call__(self, request: Request) -> Response:
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return as_json({"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}, 401)
        if request.path == "/v1/models":
            return as_json({"object": "list", "data": [{"id": self.model, "object": "model"}]})
        if request.path == "/version" and "tokenize" in self.can:
            return as_json({"version": "0.0.test"})
        feature = {"/v1/completions": "completions", "/v1/chat/completions": "chat", "/tokenize": "tokenize"}
        if feature.get(request.path) not in self.can:
            return as_json({"error": {"message": "Not Found", "code": 404}}, 404)
        fields = request.json()
        if fields.get("model") != self.model:
            message = f"The model `{fields.get('model')}` does not exist."
            return as_json({"error": {"message": message, "type": "NotFoundError", "code": 404}}, 404)
        if request.path == "/tokenize":
            return as_json(self._tokenize(fields))
        if self.hosted and (wrong := [name for name in ("max_tokens", "temperature") if name in fields]):
            return as_json({"error": {"message": f"Unsupported parameter: '{wrong[0]}'"}}, 400)
        await asyncio.sleep(self.answer_seconds)
        return as_json(self._complete(fields) if request.path == "/v1/completions" else self._chat(fields))

    def _tokenize(self, fields: dict[str, Any]) -> dict[str, Any]:
        if "prompt" in fields:
            text = fields["prompt"]
        else:
            self.messages.append(fields["messages"])
            text = "".join(f"<{turn['role']}>{turn['content']}" for turn in fields["messages"]) + "<assistant>"
        tokens = [word_id(word) for word in words(text)]
        self.texts[tuple(tokens)] = text
        return {"tokens": tokens, "count": len(tokens)}

    def _complete(self, fields: dict[str, Any]) -> dict[str, Any]:
        prompts = fields["prompt"]
        if isinstance(prompts, str) or (prompts and isinstance(prompts[0], int)):
            prompts = [prompts]
        elif "lists" not in self.can:
            prompts = prompts[:1]
        texts = [prompt if isinstance(prompt, str) else self._untokenize(prompt) for prompt in prompts]
        self.asked += texts
        choices = [{"index": at, **self._written(text, fields)} for at, text in enumerate(texts)]
        tokens_in = sum(len(words(text)) for text in texts)
        return {"object": "text_completion", "choices": choices, "usage": _usage(tokens_in, len(texts))}

    def _untokenize(self, ids: list[int]) -> str:
        for end in range(len(ids), 0, -1):  # a prompt, or a prompt and a label, that were tokenised here before
            if (head := self.texts.get(tuple(ids[:end]))) is not None:
                return head + (self._untokenize(ids[end:]) if ids[end:] else "")
        raise KeyError(f"token ids {ids} were not made here")

    def _written(self, prompt: str, fields: dict[str, Any]) -> dict[str, Any]:
        if fields.get("echo") and "echo" in self.can:
            tokens = words(prompt)
            values = [None if not at else logprob("".join(tokens[:at]), token) for at, token in enumerate(tokens)]
            values = [*values[1:], -9.0] if self.shifted else values
            return {
                "text": prompt,
                "finish_reason": "length",
                "logprobs": {"tokens": tokens, "token_logprobs": values},
            }
        text = answer_to(_drawn(prompt, fields))
        choice = fields.get("structured_outputs", {}).get("choice")
        if choice and "choice" in self.can:
            text = choice[zlib.crc32(prompt.encode()) % len(choice)]
        told: dict[str, Any] | None = None
        if fields.get("logprobs") is not None and "echo" in self.can:
            told = {"tokens": [text], "token_logprobs": [logprob(prompt, text)], "top_logprobs": [{}]}
            if "logprob_token_ids" in fields and "token_ids" in self.can:
                told["top_logprobs"] = [
                    {
                        f"token_id:{token}": logprob(prompt, self._untokenize([token]))
                        for token in fields["logprob_token_ids"]
                    }
                ]
        return {"text": text, "finish_reason": "stop", "logprobs": told}

    def _chat(self, fields: dict[str, Any]) -> dict[str, Any]:
        prompt = fields["messages"][-1]["content"]
        self.asked.append(prompt)
        self.messages.append(fields["messages"])
        text = answer_to(_drawn(prompt, fields)).strip()
        schema = fields.get("response_format", {}).get("json_schema", {}).get("schema")
        if schema and "json_schema" in self.can:
            labels = schema["properties"]["label"]["enum"]
            text = json.dumps({"label": labels[zlib.crc32(prompt.encode()) % len(labels)]})
        told = None
        if fields.get("logprobs") and "top" in self.can:
            top = [{"token": token, "logprob": logprob(prompt, token)} for token in ("positive", " negative", "yes")]
            told = {"content": [{"token": "yes", "logprob": -1.0, "top_logprobs": top}]}
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
            "logprobs": told,
        }
        return {"object": "chat.completion", "choices": [choice], "usage": _usage(len(words(prompt)), 1)}


def _drawn(prompt: str, fields: dict[str, Any]) -> str:
    """What the answer depends on: the prompt, and the seed where the answer is not greedy."""
    return f"{prompt}|{fields.get('seed')}" if fields.get("temperature") else prompt


def _usage(tokens_in: int, tokens_out: int) -> dict[str, int]:
    return {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that each answer takes longer")
    args = parser.parse_args()
    with HTTPServer(OpenAIApp(answer_seconds=args.delay), port=args.port) as server:
        print(f"OpenAI test server at {server.url}/v1 with model 'toy'; Ctrl-C ends it", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
