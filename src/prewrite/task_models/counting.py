"""Counts what a task model is asked and what that takes; the outermost wrapper, so that it sees cache hits too."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass, replace

from prewrite.task_models.base import TaskModel
from prewrite.task_models.stream import Batch, NoAnswer, Replies, Reply, Wrapper, stream
from prewrite.task_models.token_counts import estimated_tokens


@dataclass
class Usage:
    """Counts since the start of a run, those of the runs it resumes included."""

    prompts: int = 0
    """Questions asked: answered by the backend or the cache."""
    calls: int = 0
    """Prompts sent to the backend, those sent again after a failure included."""
    retries: int = 0
    """Attempts that gave no answer."""
    cache_hits: int = 0
    """Questions answered without the backend: from the cache, or as a repetition within one batch."""
    input_tokens: int = 0
    output_tokens: int = 0
    uncounted: int = 0
    """Answers whose backend does not tell its tokens: these are estimated in the two counts above."""
    no_answers: int = 0
    """Prompts that were asked and got no answer: refused, cut off, or out of tokens while thinking."""
    other_model: int = 0
    """Answers that the server says came from another configuration than the first one did."""
    seconds: float = 0.0
    """Time spent waiting for the task model, the cache included."""

    def as_dict(self) -> dict[str, float]:
        """Plain numbers, for `result.json` and checkpoints; `Usage(**d)` reads them back."""
        return asdict(self)

    def add(self, other: Usage) -> None:
        """Count what `other` counted too."""
        for name, count in other.as_dict().items():
            setattr(self, name, getattr(self, name) + count)


class CountingTaskModel(Wrapper):
    """Counts into `usage`. Safe in several threads."""

    def __init__(self, inner: TaskModel, usage: Usage | None = None):
        super().__init__(inner)
        self.usage = usage or Usage()
        self._lock = threading.Lock()

    def stream(self, batch: Batch) -> Replies:
        """The wrapped model's answers, counted."""

        def sending(row: int, tokens_in: int, tokens_out: int) -> None:
            batch.sending(row, tokens_in, tokens_out)
            with self._lock:
                self.usage.calls += 1

        def failed(row: int, billed: bool) -> None:
            with self._lock:
                self.usage.retries += 1
            batch.failed(row, billed)

        replies = stream(self.inner, replace(batch, sending=sending, failed=failed))
        while True:
            start = time.perf_counter()
            item = next(replies, None)
            with self._lock:
                self.usage.seconds += time.perf_counter() - start
                if item is not None:
                    self._count(batch, *item)
            if item is None:
                return
            yield item

    def _count(self, batch: Batch, row: int, reply: Reply) -> None:
        usage = self.usage
        usage.prompts += 1
        if isinstance(reply.value, NoAnswer):
            usage.no_answers += 1
        usage.other_model += not reply.known_model
        if reply.cached:
            usage.cache_hits += 1
            return
        read, written = reply.input_tokens, reply.output_tokens
        if read is None or written is None:
            usage.uncounted += 1
        if read is None:
            scored = batch.targets[row : row + 1] or batch.labels if batch.method.endswith("logprobs") else ()
            read = estimated_tokens(batch.prompts[row], *scored)
        if written is None:
            written = estimated_tokens(reply.value) if isinstance(reply.value, str) else 0
        usage.input_tokens += read
        usage.output_tokens += written
