"""A search on rows that were pasted into the page, told while it runs.

The same search as `prewrite search`, less the label offsets, which a copied text cannot hold, and less the test: there
are no rows left to measure on. The page says so.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from prewrite.choosing.candidates import propose
from prewrite.choosing.choose import split_by_guards
from prewrite.choosing.halving import calls_of
from prewrite.choosing.search import plan_search, search_prompt
from prewrite.data import PRewriteDataset
from prewrite.errors import ConfigError, DataError
from prewrite.scoring.evaluator import Evaluator, Rewrites
from prewrite.scoring.prompt import TaskPrompt
from prewrite.scoring.rewards import TaskReward
from prewrite.serve.chat import checked_instruction
from prewrite.serve.writer import Writer
from prewrite.types import TASKS, Answer, RewriteExample

FEWEST_ROWS, MOST_ROWS = 4, 500
ROWS_FOR_EXEMPLARS = 12
"""From so many rows on, a third are kept apart as worked examples; with fewer all are for choosing."""
PARTS = ("instruction", "answer_line", "exemplars")
Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Wanted:
    """A search that the page asks for."""

    instruction: str
    rows: str
    """JSONL or CSV."""
    task: str
    task_model: str


class Searches:
    """What a search needs besides its rows.

    Args:
        writer: writes the wordings.
        evaluators: by the name of their task model.
        open_reward: guards around an evaluator, given a row.
        calls: most task-model calls of one search.
        num_candidates: wordings asked of the rewriter, beside its likeliest one.
        seed: of samples, exemplars and the order of rows.
    """

    def __init__(
        self,
        writer: Writer,
        evaluators: Mapping[str, Evaluator],
        open_reward: Callable[[Evaluator, Sequence[RewriteExample]], TaskReward],
        *,
        calls: int,
        num_candidates: int,
        seed: int = 0,
    ):
        self.writer, self.evaluators, self.open_reward = writer, evaluators, open_reward
        self.calls, self.num_candidates, self.seed = calls, num_candidates, seed

    def read(self, body: Mapping[str, Any]) -> Wanted:
        """The search in the body of a request. Raises `ConfigError` that names the field."""
        task, model, rows = str(body.get("task")), str(body.get("task_model")), body.get("rows")
        if task not in TASKS:
            raise ConfigError(f"task must be one of {', '.join(TASKS)}")
        if model not in self.evaluators:
            raise ConfigError(f"task_model must be one of {', '.join(self.evaluators)}")
        if not isinstance(rows, str) or not rows.strip():
            raise ConfigError("there are no rows; paste a few, with an input and its right answer each")
        return Wanted(checked_instruction(body.get("instruction")), rows, task, model)

    def run(self, wanted: Wanted, tell: Tell, stop: threading.Event) -> None:
        """Search, and tell each step; ends early, between two prompts, once `stop` is set.

        Raises `DataError` for bad rows, and what the task model raises.
        """
        plain = self.evaluators[wanted.task_model]
        shown, dev = read_rows(wanted)
        reward = self.open_reward(plain, dev[:1])
        tell({"event": "start", "rows": len(dev), "exemplar_rows": len(shown), "most_calls": self.calls})
        proposed = propose(self.writer, wanted.instruction, self.num_candidates, seed=self.seed)
        wordings, refused = split_by_guards(proposed, reward, wanted.instruction, dev)
        others = [wording for wording in wordings if wording.source != "initial"]
        plan = plan_search(self.calls, len(dev), wordings=len(others), parts=PARTS)
        planned = calls_of(plan[0]) + calls_of(plan[1])
        tell({"event": "wordings", "kept": len(others), "refused": len(refused), "most_calls": planned})
        watched = WatchedEvaluator(plain, tell, stop)
        try:
            found = search_prompt(
                watched,
                replace(plain.around, instruction=wanted.instruction),
                dev,
                train_rows=shown,
                wordings=others,
                parts=PARTS,
                constraints=reward.constraints,
                calls=self.calls,
                seed=self.seed,
            )
        except Stopped:
            return
        number = watched.number(found.prompt)
        scores = {"initial": found.dev_scores["initial"], "chosen": found.dev_scores["prompt"]}
        tell({"event": "done", "chosen": number, "scores": scores, "rows": found.rows, "calls": found.calls})


class Stopped(Exception):
    """Nobody waits for the search any more."""


class WatchedEvaluator(Evaluator):
    """Asks prompt by prompt, tells what each scores on the rows that it has seen, and stops between two."""

    def __init__(self, plain: Evaluator, tell: Tell, stop: threading.Event):
        super().__init__(plain.task_model, metric=plain.metric, decoding=plain.decoding, around=plain.around)
        self.tell, self.stop = tell, stop
        self.scores: dict[TaskPrompt, list[float]] = {}

    def number(self, prompt: TaskPrompt) -> int:
        """A prompt's number, in the order in which prompts were first asked; the initial one is 0."""
        return list(self.scores).index(prompt)

    def answers(self, rewrites: Rewrites, examples: Sequence[RewriteExample]) -> list[list[Answer]]:
        """As of any evaluator. Raises `Stopped`."""
        found = []
        for rewrite in rewrites:
            if self.stop.is_set():
                raise Stopped
            (answers,) = super().answers([rewrite], examples)
            found.append(answers)
            prompt = self.prompt_of(rewrite)
            scores = self.scores.setdefault(prompt, [])
            scores += [answer.score for answer in answers if not answer.no_answer]
            if scores:
                told = {"prompt": self.number(prompt), "text": prompt.render("{input}"), "rows": len(scores)}
                self.tell({"event": "prompt", **told, "score": float(np.mean(scores))})
        return found


def read_rows(wanted: Wanted) -> tuple[list[RewriteExample], list[RewriteExample]]:
    """Rows to show as worked examples, and rows to choose on. Raises `DataError` that names line and field."""
    kind = "jsonl" if wanted.rows.lstrip("\ufeff \r\n\t").startswith("{") else "csv"
    with tempfile.TemporaryDirectory() as folder:  # the readers of files know all the forms that rows come in
        file = Path(folder) / f"rows.{kind}"
        file.write_bytes(wanted.rows.encode("utf-8", "surrogatepass"))
        try:
            rows = PRewriteDataset(file, instruction=wanted.instruction, task=wanted.task)
        except DataError as error:
            raise DataError(str(error).replace(str(file), "the pasted rows")) from None
    if not FEWEST_ROWS <= len(rows) <= MOST_ROWS:
        raise DataError(f"{len(rows)} rows were pasted; a search here takes {FEWEST_ROWS} to {MOST_ROWS}")
    shown, dev = ([], list(rows))
    if len(rows) >= ROWS_FOR_EXEMPLARS:
        parts = rows.split((1 / 3, 2 / 3, 0.0))
        shown, dev = list(parts.train), list(parts.dev)
    own = wanted.instruction
    return [replace(row, instruction=own) for row in shown], [replace(row, instruction=own) for row in dev]
