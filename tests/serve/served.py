"""`prewrite serve` around a scripted rewriter and task model, on a port of its own."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import numpy as np

from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.rewards import TaskReward
from prewrite.serve.app import listen, make_server
from prewrite.serve.search import Searches
from prewrite.serve.writer import Writer
from prewrite.task_models.scripted import ScriptedTaskModel

INSTRUCTION = "sort the mail"
BEST = "sort the mail into spam and ham"
ROWS = "".join(
    f'{{"input": "{word} {number}", "output": "{label}"}}\n'
    for number in range(5)
    for word, label in (("win", "spam"), ("hello", "ham"))
)


class ScriptedRewriter:
    """Greedy: the instruction in other words; samples: `texts` in turn."""

    def __init__(self, texts=(BEST,)):
        self.texts = list(texts)
        self.seeds = []

    def greedy(self, instruction):
        return f"Please {instruction}"

    def sample_rewrites(self, instruction, count, *, seed):
        self.seeds.append(seed)
        return [self.texts[number % len(self.texts)] for number in range(count)]


class SlowTaskModel(ScriptedTaskModel):
    """Answers right where the prompt says "into", as `BEST` does, else `ham`; counts its calls and takes time."""

    def __init__(self, seconds=0.0):
        super().__init__(lambda prompt: "ham", name="scripted")
        self.seconds, self.calls = seconds, 0

    def label_logprobs(self, prompts, labels):
        self.calls += 1
        time.sleep(self.seconds)
        given = ["spam" if "into" in text and text.rfind("win") > text.rfind("hello") else "ham" for text in prompts]
        return np.array([[0.0 if label == answer else -5.0 for label in labels] for answer in given])


def searches(*, rewriter=None, task_model=None, calls=600, num_candidates=4):
    model = task_model or SlowTaskModel()
    return Searches(
        Writer("toy", rewriter or ScriptedRewriter(), lambda text: len(text.split())),
        {"scripted": Evaluator(model)},
        lambda evaluator, rows: TaskReward(evaluator, guards=()),
        calls=calls,
        num_candidates=num_candidates,
    )


@contextmanager
def serving(what):
    """The address of a running server."""
    with listen(0) as place:
        server = make_server(what)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{place.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)
