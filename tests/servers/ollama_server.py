"""A server that speaks Ollama's documented API, for tests and to try the quickstart where Ollama is not installed.

    python tests/servers/ollama_server.py --port 11434 --embedded

answers as `smollm2:135m` with the embedded model (slowly: one request at a time, on the CPU); without `--embedded` by
a fixed function of the prompt.

Documented: endpoints, request and answer fields, streaming by default, error shapes and texts, the empty prompt that
loads a model, `name` meaning `name:latest`. Not here: `/v1`, embeddings, images, tools, pulling.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import contextlib

from servers.http_server import HTTPServer, Request, Response, as_json


@dataclass
class Written:
    """What a model wrote: its tokens, and for each the likeliest alternatives with log-probabilities."""

    tokens: list[str]
    top: list[list[tuple[str, float]]]


class FixedModel:
    """A fixed function of the prompt: `positive` if it holds "good", else `negative`; as a text, the prompt's end."""

    def write(self, prompt: str, limit: int, labels: Sequence[str] | None) -> Written:
        liked, other = ("positive", "negative") if "good" in prompt else ("negative", "positive")
        if labels:
            label = liked if liked in labels else labels[len(prompt) % len(labels)]
            text = json.dumps({"label": label})
            return Written([text], [[(text, 0.0)]])
        if limit == 1:
            top = [
                (f" {liked}", math.log(0.6)),
                (liked, math.log(0.1)),
                (f" {other}", math.log(0.2)),
                (".", math.log(0.05)),
            ]
            return Written([f" {liked}"], [top])
        words = prompt.split()[-min(limit, 8) :]
        return Written([f"{word} " for word in words], [[(f"{word} ", -0.1)] for word in words])


class EmbeddedModel:
    """The embedded model, or another in this process, one request at a time."""

    def __init__(self, model: str = "embedded") -> None:
        from prewrite.task_models.hf import HFTaskModel

        self.inner = HFTaskModel(model)
        self.lock = threading.Lock()

    def write(self, prompt: str, limit: int, labels: Sequence[str] | None) -> Written:
        import torch

        tokenizer, trunk = self.inner.tokenizer, self.inner.trunk
        with self.lock, torch.inference_mode():
            if labels:
                scores = self.inner.label_logprobs([prompt], labels)[0]
                text = json.dumps({"label": labels[int(scores.argmax())]})
                return Written([text], [[(text, 0.0)]])
            ids = tokenizer(prompt)["input_ids"]
            cache = trunk.new_cache(1, len(ids) + limit)
            written = Written([], [])
            for _ in range(limit):
                positions = cache.length + torch.arange(len(ids))[None]
                hidden = trunk(torch.tensor([ids]), positions, cache, keep=1)
                logprobs = trunk.lm_head(hidden[0, -1]).float().log_softmax(-1)
                best = logprobs.topk(min(20, len(logprobs)))
                token = int(best.indices[0])
                if token in self.inner.end_ids:
                    break
                written.tokens.append(tokenizer.decode([token]))
                named = zip(best.indices.tolist(), best.values.tolist(), strict=True)
                written.top.append([(tokenizer.decode([index]), value) for index, value in named])
                ids = [token]
            return written


@dataclass
class OllamaApp:
    """The API over a model. `asked` keeps each prompt that was answered, in order."""

    model: Any = field(default_factory=FixedModel)
    names: tuple[str, ...] = ("smollm2:135m",)
    version: str = "0.12.11"
    load_seconds: float = 0.0
    answer_seconds: float = 0.0
    thinks: bool = False
    digest: str = "d" * 64
    prompt_eval_count: int | None = None
    """What the server says it read; by default a quarter of the characters."""
    asked: list[str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    loaded: set[str] = field(default_factory=set)

    async def __call__(self, request: Request) -> Response:
        route: dict[tuple[str, str], Callable[[], Any]] = {
            ("GET", "/"): lambda: Response(200, b"Ollama is running", "text/plain; charset=utf-8"),
            ("GET", "/api/version"): lambda: as_json({"version": self.version}),
            ("GET", "/api/tags"): lambda: as_json({"models": [self._listed(name) for name in self.names]}),
            ("GET", "/api/ps"): lambda: as_json({"models": [self._listed(name) for name in sorted(self.loaded)]}),
        }
        if answer := route.get((request.method, request.path)):
            result: Response = answer()
            return result
        if request.method != "POST" or request.path not in ("/api/show", "/api/generate", "/api/chat"):
            return Response(404, b"404 page not found", "text/plain")
        if not request.body:
            return as_json({"error": "missing request body"}, 400)
        try:
            fields = request.json()
        except json.JSONDecodeError as error:
            return as_json({"error": str(error)}, 400)
        name = fields.get("model") or ""
        if not name:
            return as_json({"error": "model is required"}, 400)
        full = name if ":" in name else f"{name}:latest"
        if full not in self.names:
            return as_json({"error": f"model '{name}' not found"}, 404)
        if request.path == "/api/show":
            return as_json(self._shown())
        return await self._answer(request.path, full, name, fields)

    def _listed(self, name: str) -> dict[str, Any]:
        details = {"format": "gguf", "family": "llama", "parameter_size": "134.52M", "quantization_level": "F16"}
        moment = "2026-01-01T00:00:00Z"
        return {
            "name": name,
            "model": name,
            "modified_at": moment,
            "size": 1,
            "digest": self.digest,
            "details": details,
        }

    def _shown(self) -> dict[str, Any]:
        capabilities = ["completion", "thinking"] if self.thinks else ["completion"]
        about = {"general.architecture": "llama"}
        shown = {"modelfile": "", "template": "{{ .Prompt }}", "details": {}, "model_info": about}
        return shown | {"capabilities": capabilities}

    async def _answer(self, path: str, full: str, name: str, fields: dict[str, Any]) -> Response:
        self.requests.append(fields)
        if fields.get("raw") and (fields.get("system") or fields.get("template") or fields.get("context")):
            return as_json({"error": "raw mode does not support template, system, or context"}, 400)
        if not 0 <= fields.get("top_logprobs", 0) <= 20:
            return as_json({"error": "top_logprobs must be between 0 and 20"}, 400)
        if fields.get("think") and not self.thinks:
            return as_json({"error": f'"{name}" does not support thinking'}, 400)
        started = time.perf_counter_ns()
        if full not in self.loaded:
            await asyncio.sleep(self.load_seconds)
            self.loaded.add(full)
        chat = path == "/api/chat"
        prompt = fields["messages"][-1]["content"] if chat and fields.get("messages") else fields.get("prompt") or ""
        base = {"model": name, "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        if not prompt:
            unload = fields.get("keep_alive") == 0
            if unload:
                self.loaded.discard(full)
            reason = {"done": True, "done_reason": "unload" if unload else "load"}
            return as_json(base | self._text(chat, "") | reason)
        await asyncio.sleep(self.answer_seconds)
        limit = fields.get("options", {}).get("num_predict", -1)
        enum = _enum(fields.get("format"))
        limit = limit if limit > 0 else 128
        # The fixed model answers at once; the embedded one takes its time off the event loop.
        work = (prompt, limit, enum)
        slow = not isinstance(self.model, FixedModel)
        written = await asyncio.to_thread(self.model.write, *work) if slow else self.model.write(*work)
        self.asked.append(prompt)
        end = {
            "done": True,
            "done_reason": "length" if len(written.tokens) >= limit else "stop",
            "total_duration": time.perf_counter_ns() - started,
            "prompt_eval_count": self.prompt_eval_count or max(1, len(prompt) // 4),
            "eval_count": len(written.tokens),
        }
        count = fields.get("top_logprobs", 0) if fields.get("logprobs") and self._has_logprobs() else None
        if fields.get("stream", True):
            return Response(content_type="application/x-ndjson", lines=self._stream(base, chat, written, end, count))
        whole = base | self._text(chat, "".join(written.tokens)) | end
        if count is not None:
            whole["logprobs"] = [self._logprob(written, at, count) for at in range(len(written.tokens))]
        return as_json(whole)

    async def _stream(
        self, base: dict[str, Any], chat: bool, written: Written, end: dict[str, Any], count: int | None
    ) -> AsyncIterator[bytes]:
        for at, token in enumerate(written.tokens):
            told = {} if count is None else {"logprobs": [self._logprob(written, at, count)]}
            yield json.dumps(base | self._text(chat, token) | told | {"done": False}).encode() + b"\n"
        yield json.dumps(base | self._text(chat, "") | end).encode() + b"\n"

    @staticmethod
    def _text(chat: bool, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}} if chat else {"response": text}

    @staticmethod
    def _logprob(written: Written, at: int, count: int) -> dict[str, Any]:
        top = [{"token": token, "logprob": logprob} for token, logprob in written.top[at][:count]]
        chosen = {"token": written.tokens[at], "logprob": written.top[at][0][1]}
        return chosen | ({"top_logprobs": top} if count else {})

    def _has_logprobs(self) -> bool:
        return tuple(int(part) for part in self.version.split(".")) >= (0, 12, 11)


def _enum(schema: Any) -> list[str] | None:
    """The labels of `{"label": enum}`; other schemas are not understood here and leave the text free."""
    if not isinstance(schema, dict):
        return None
    labels = schema.get("properties", {}).get("label", {}).get("enum")
    return [str(label) for label in labels] if labels else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=11434)
    parser.add_argument("--embedded", action="store_true", help="answer with the embedded model")
    parser.add_argument("--model", default="smollm2:135m", help="the name to answer to")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that each answer takes longer")
    args = parser.parse_args()
    model = EmbeddedModel() if args.embedded else FixedModel()
    app = OllamaApp(model=model, names=(args.model,), answer_seconds=args.delay)
    with HTTPServer(app, port=args.port) as server:
        print(f"Ollama test server at {server.url} with {args.model}; Ctrl-C ends it", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
