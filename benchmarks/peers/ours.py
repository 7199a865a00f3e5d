"""Our arms: the initial prompt, searches over text answers at the endpoint, and searches over label likelihoods.

Likelihoods need the model in this process. No endpoint of the other tools' kind gives them, so those arms stand apart.
Where the task model reads bare text, exemplars are no turns of a conversation, as in `HFTaskModel` without `chat`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from benchmarks.peers.endpoint_limits import TASK_TOKENS
from benchmarks.peers.job import MARK, GappedMessage, Job, Result, gapped
from numpy.typing import NDArray

from prewrite.choosing.candidates import Candidate
from prewrite.choosing.search import Found, search_prompt
from prewrite.data import PRewriteDataset
from prewrite.run.build import InstructionRows, open_reward
from prewrite.run.config import SearchConfig
from prewrite.run.search import open_proposer, wordings_of
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.prompt import TaskPrompt
from prewrite.task_models.base import Capability
from prewrite.task_models.registry import wrap_task_model
from prewrite.types import RewriteExample

if TYPE_CHECKING:
    from prewrite.task_models.openai import OpenAITaskModel

PARTS = {
    "exemplars": ("exemplars",),
    "search": ("answer_line", "exemplars"),
    "search-worded": ("instruction", "answer_line", "exemplars"),
    "offsets-likelihood": ("offsets",),
    "search-likelihood": ("answer_line", "exemplars", "offsets"),
}
"""What of the prompt each search may change."""


class Scored(NamedTuple):
    """A search over likelihoods, measured on the test rows."""

    scores: NDArray[np.float64]
    start: NDArray[np.float64]
    calls: int
    notes: dict[str, object]


def search(job: Job, *, ready: Callable[[], None] = lambda: None) -> Result:
    """The prompt that `job.variant` finds with text answers of the endpoint; the initial one as it is.

    `ready` is called when everything is known about the server, before the search.
    """
    initial = TaskPrompt(job.instruction, decoding="generate")
    start = messages(initial)
    if job.variant == "initial":
        return Result(start, start, changed=False)
    backend = open_served(job)
    try:
        backend.load()
        ready()
        evaluator = Evaluator(wrap_task_model(backend, cache=None, budget=None), decoding="generate")
        found, notes = _found(job, evaluator, initial)
    finally:
        backend.close()
    return Result(messages(found.prompt), start, changed=found.prompt != initial, notes=notes)


def open_served(job: Job) -> OpenAITaskModel:
    """The endpoint's task model; see the module docstring for its layouts."""
    from prewrite.task_models.openai import OpenAITaskModel

    class Served(OpenAITaskModel):
        @property
        def capabilities(self) -> frozenset[Capability]:
            return super().capabilities - ({"turns"} if job.frame == "bare" else set())

    return Served("task", address=job.url, chat=True, max_new_tokens=TASK_TOKENS, concurrency=32, remember=False)


def search_likelihood(job: Job, test: list[RewriteExample]) -> Scored:
    """The same with the log-probabilities of labels, with label offsets, in this process."""
    from prewrite.task_models.hf import HFTaskModel

    evaluator = Evaluator(
        wrap_task_model(HFTaskModel(chat=job.frame == "chat"), cache=None, budget=None), decoding="likelihood"
    )
    initial = TaskPrompt(job.instruction, decoding="likelihood")
    if job.variant == "initial-likelihood":
        scores = evaluator.score([initial], test)[0]
        return Scored(scores, scores, 0, {})
    found, notes = _found(job, evaluator, initial)
    start, scores = evaluator.score([initial, found.prompt], test)
    return Scored(scores, start, found.calls, notes | {"accepted": int(found.prompt != initial)})


def _found(job: Job, evaluator: Evaluator, initial: TaskPrompt) -> tuple[Found, dict[str, object]]:
    parts = PARTS[job.variant]
    train, dev = ([job.row(input, targets) for input, targets in part] for part in (job.train, job.dev))
    wordings, refused = ([], []) if "instruction" not in parts else proposals(job, evaluator, train, dev)
    found = search_prompt(
        evaluator, initial, dev, train_rows=train, wordings=wordings, parts=parts, calls=job.budget, seed=job.seed
    )
    notes: dict[str, object] = {"exemplars": len(found.prompt.exemplars), "layout": found.prompt.layout}
    notes |= {"answer line": found.prompt.answer_line, "dev": found.dev_scores}
    if "instruction" in parts:
        notes |= {"proposals": len(wordings) - 1, "refused by guards": len(refused)}
        notes["accepted"] = int(found.prompt.instruction != initial.instruction)
    return found, notes


def proposals(
    job: Job, evaluator: Evaluator, train: list[RewriteExample], dev: list[RewriteExample]
) -> tuple[list[Candidate], list[dict[str, object]]]:
    """Wordings of the embedded model before training, as `prewrite search` asks for them."""
    config = SearchConfig(dataset=["demo"], decoding="generate", seed=job.seed)
    rows = InstructionRows(
        job.instruction, PRewriteDataset.from_examples(train), PRewriteDataset.from_examples(dev), None
    )
    reward = open_reward(config, evaluator, [dev[0]])
    return wordings_of(config, rows, reward, open_proposer("embedded"))


def messages(prompt: TaskPrompt) -> tuple[GappedMessage, ...]:
    """A prompt as the endpoint is sent it."""
    return gapped(prompt.messages(MARK))
