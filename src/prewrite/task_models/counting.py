"""Counts what a task model is asked and what that takes; the outermost wrapper, so that it sees cache hits too."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from prewrite.task_models.base import TaskModel
from prewrite.task_models.stream import Batch, Reply, Wrapper, stream


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
    """Answers whose backend does not tell its tokens."""
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

    def stream(self, batch: Batch) -> Iterator[tuple[int, Reply]]:
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
                    self._count(item[1])
            if item is None:
                return
            yield item

    def _count(self, reply: Reply) -> None:
        self.usage.prompts += 1
        if reply.cached:
            self.usage.cache_hits += 1
        elif reply.input_tokens is None or reply.output_tokens is None:
            self.usage.uncounted += 1
        else:
            self.usage.input_tokens += reply.input_tokens
            self.usage.output_tokens += reply.output_tokens
