"""One OpenAI-compatible chat server on this machine that every arm asks, and that counts what it is asked.

    python -m benchmarks.peers.endpoint --port 8000 --log calls.jsonl

The name of the model is its role: `task` is the task model, which answers greedily in at most 16 tokens, whatever a
client asks for; `proposer` is the same weights, sampled, which writes instructions. Each role has its own counts.
`--frame bare` sends the task model the text of the messages alone, as `prewrite search` does by default.
Requests that come within a few milliseconds go through the model together. A task prompt that was answered before is
answered from memory, and counted all the same. Beyond the limit of a run, task calls get an error.
"""

from __future__ import annotations

import argparse
import itertools
import json
import queue
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers.endpoint_limits import PROPOSER_TOKENS, TASK_TOKENS
from benchmarks.peers.speaker import FRAMES, Frame, Speaker, Written, rendered

MOST_ROWS = 64
"""Requests that go through the model together."""
LARGEST_BODY = 4_000_000
"""Bytes of a request."""


class Refusal(Exception):
    """A request that gets no answer: the message, and a code for clients that tell errors apart."""

    def __init__(self, message: str, code: str, status: int = 400):
        super().__init__(message)
        self.code, self.status = code, status


@dataclass
class Count:
    """What one role was asked since the last reset."""

    calls: int = 0
    """Answered ones."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    refused: int = 0
    """Too long for the model, or beyond the limit."""


class Waiting(NamedTuple):
    """A request on its way to the model."""

    role: str
    prompt: str
    limit: int
    temperature: float
    seed: int
    answer: Future[Written]


@dataclass
class Endpoint:
    """Counts, batches and answers; `serve` puts it on a port."""

    model: Speaker
    frame: Frame = "chat"
    """How the task model reads messages."""
    log: Path | None = None
    """Every call as a line of JSON, with its text."""
    pause: float = 0.004
    """Seconds that a request waits for others to go with it."""
    counts: dict[str, Count] = field(default_factory=dict)
    limit: int | None = None
    """Task calls that are answered."""
    url: str = ""
    _queue: queue.Queue[Waiting | None] = field(default_factory=queue.Queue)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _known: dict[tuple[str, int], Written] = field(default_factory=dict)
    _seen: Counter[str] = field(default_factory=Counter)
    _seed: int = 0

    def __post_init__(self) -> None:
        self.reset()

    def reset(self, *, limit: int | None = None, seed: int = 0) -> None:
        """Begin a run: counts at 0, `limit` task calls, and the seed of what the proposer writes."""
        with self._lock:
            self.counts = {"task": Count(), "proposer": Count()}
            self.limit, self._seed, self._seen = limit, seed, Counter()

    def told(self) -> dict[str, dict[str, int]]:
        """The counts by role."""
        with self._lock:
            return {role: asdict(count) for role, count in self.counts.items()}

    def answer(self, body: Any) -> dict[str, Any]:
        """The reply to one chat request. Raises `Refusal`."""
        role, messages = read_request(body)
        prompt = rendered(self.model, messages, self.frame if role == "task" else "chat")
        most = TASK_TOKENS if role == "task" else PROPOSER_TOKENS
        asked = body.get("max_completion_tokens") or body.get("max_tokens") or most
        limit = max(1, min(int(asked), most))
        length = self.model.lengths([prompt])[0]
        if length + limit > self.model.context:
            with self._lock:
                self.counts[role].refused += 1
            raise Refusal(
                f"a prompt of {length} tokens and {limit} for the answer are more than {self.model.context:.0f}",
                "context_length_exceeded",
            )
        temperature = 0.0 if role == "task" else float(body.get("temperature", 1.0))
        with self._lock:
            count = self.counts[role]
            if role == "task" and self.limit is not None and count.calls >= self.limit:
                count.refused += 1
                raise Refusal(f"the budget of {self.limit} task calls is spent", "budget_exhausted")
            count.calls += 1
            count.prompt_tokens += length
            # The proposer's n-th answer to a prompt is another one than the first.
            self._seen[prompt] += 1
            seed = zlib.crc32(f"{self._seed} {self._seen[prompt]} {prompt}".encode())
            known = self._known.get((prompt, limit)) if temperature == 0 else None
        if known is None:
            waiting = Waiting(role, prompt, limit, temperature, seed, Future())
            self._queue.put(waiting)
            known = waiting.answer.result()
        with self._lock:
            count.completion_tokens += known.tokens
            if temperature == 0:
                self._known[prompt, limit] = known
            if self.log is not None:
                line = {"role": role, "messages": messages, "answer": known.text, "tokens": [length, known.tokens]}
                with self.log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
        return reply(role, known, length, limit)

    def work(self) -> None:
        """Answer what waits, until told to end; one thread runs this."""
        while (first := self._queue.get()) is not None:
            time.sleep(self.pause)
            batch = [first]
            while len(batch) < MOST_ROWS and not self._queue.empty():
                if (more := self._queue.get()) is None:
                    self._queue.put(None)
                    break
                batch.append(more)
            kinds = sorted(batch, key=lambda one: (one.limit, one.temperature))
            for (limit, temperature), alike in itertools.groupby(kinds, lambda one: (one.limit, one.temperature)):
                self._answer_all(list(alike), limit, temperature)

    def _answer_all(self, batch: list[Waiting], limit: int, temperature: float) -> None:
        prompts = [one.prompt for one in batch]
        try:
            found = self.model.answers(
                prompts, limit=limit, temperature=temperature, seeds=[one.seed for one in batch]
            )
        except RuntimeError as error:  # torch's; every client hears of it, and the server goes on
            for one in batch:
                one.answer.set_exception(Refusal(f"the model failed: {error}", "model_error", 500))
            return
        for one, written in zip(batch, found, strict=True):
            one.answer.set_result(written)

    @contextmanager
    def serve(self, port: int = 0) -> Iterator[Endpoint]:
        """Listen on this machine alone; 0 takes a free port. `url` is set meanwhile."""
        server = Server(("127.0.0.1", port), handler_of(self))
        threads = [threading.Thread(target=server.serve_forever, daemon=True), threading.Thread(target=self.work)]
        for thread in threads:
            thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            self._queue.put(None)
            threads[1].join()


class Server(ThreadingHTTPServer):
    """Takes a crowd of connections at once; the standard library's own refuses the sixth that waits."""

    daemon_threads = True
    request_queue_size = 512


def read_request(body: Any) -> tuple[str, list[dict[str, str]]]:
    """The role and the messages of a chat request. Raises `Refusal` for anything else."""
    if not isinstance(body, dict) or body.get("model") not in ("task", "proposer"):
        raise Refusal("model must be 'task' or 'proposer'", "model_not_found", 404)
    if body.get("stream") or body.get("n", 1) != 1:
        raise Refusal("stream and n are not served; ask for one whole answer", "invalid_request")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refusal("messages must be a list with at least one message", "invalid_request")
    return body["model"], [_read_message(message) for message in messages]


def _read_message(message: Any) -> dict[str, str]:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):  # parts, as some clients send a text
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if not isinstance(content, str) or message.get("role") not in ("system", "user", "assistant"):
        raise Refusal("a message needs a role of system, user, assistant, and a text", "invalid_request")
    return {"role": message["role"], "content": content}


def reply(role: str, written: Written, length: int, limit: int) -> dict[str, Any]:
    """A whole answer in the API's form."""
    usage = {
        "prompt_tokens": length,
        "completion_tokens": written.tokens,
        "total_tokens": length + written.tokens,
    }
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": written.text},
        "finish_reason": "length" if written.tokens >= limit else "stop",
    }
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": role, "choices": [choice]} | {
        "usage": usage
    }


def handler_of(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    """The HTTP side: POST /v1/chat/completions, GET /v1/models and GET /v1/counts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/v1/models":
                roles = [
                    {"id": role, "object": "model", "created": 0, "owned_by": "local"} for role in endpoint.counts
                ]
                self._send(200, {"object": "list", "data": roles})
            elif self.path == "/v1/counts":
                self._send(200, endpoint.told())
            else:
                self._fail(Refusal(f"no {self.path} here", "not_found", 404))

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if not 0 < length <= LARGEST_BODY:
                self.close_connection = True
                self._fail(Refusal("the request has no body, or too large a one", "invalid_request", 413))
                return
            raw = self.rfile.read(length)
            try:
                if self.path != "/v1/chat/completions":
                    raise Refusal(f"no {self.path} here", "not_found", 404)
                self._send(200, endpoint.answer(json.loads(raw)))
            except ValueError:
                self._fail(Refusal("the body is not JSON", "invalid_request"))
            except Refusal as refusal:
                self._fail(refusal)

        def _fail(self, refusal: Refusal) -> None:
            error = {"message": str(refusal), "type": "invalid_request_error", "code": refusal.code}
            self._send(refusal.status, {"error": error})

        def _send(self, status: int, body: Any) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the counts are the log."""

    return Handler


def main() -> None:
    """Serve the embedded model until stopped."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--frame", choices=FRAMES, default="chat")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--limit", type=int, help="task calls that are answered")
    given = parser.parse_args()
    from benchmarks.peers.chat_model import ChatModel

    endpoint = Endpoint(ChatModel("embedded"), frame=given.frame, log=given.log)
    endpoint.reset(limit=given.limit)
    with endpoint.serve(given.port):
        print(f"{endpoint.url} serves the models task and proposer; Ctrl-C ends it", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print(json.dumps(endpoint.told(), indent=2))


if __name__ == "__main__":
    main()
