"""promptolution's CAPO (with worked examples), OPRO and EvoPromptGA."""

from __future__ import annotations

import logging
import random
from typing import Any

import numpy as np
import pandas as pd
from benchmarks.peers.endpoint_limits import PROPOSER_TEMPERATURE, PROPOSER_TOKENS, TASK_TOKENS
from benchmarks.peers.job import MARK, Job, Result, counts, gapped, run_program
from promptolution.llms.api_llm import APILLM
from promptolution.optimizers.capo import CAPO
from promptolution.optimizers.evoprompt_ga import EvoPromptGA
from promptolution.optimizers.opro import OPRO
from promptolution.predictors.base_predictor import BasePredictor
from promptolution.tasks.classification_tasks import ClassificationTask
from promptolution.utils.callbacks import BaseCallback
from promptolution.utils.prompt import Prompt
from promptolution.utils.prompt_creation import create_prompt_variation
from promptolution.utils.templates import DEFAULT_SYS_PROMPT

POPULATION = 5
"""Prompts that CAPO and EvoPromptGA begin with: the instruction, and variations of it by the proposer."""
BLOCKS, BLOCK_SHARE = 3, 50
"""CAPO races on blocks of dev rows, each a 50th of the budget; its own 30 rows and 10 blocks would leave no second
step in 1,000 calls."""
SUBSET = 50
"""Dev rows on which OPRO and EvoPromptGA score a prompt, so that they get to try about 20 in 1,000 calls."""
OPRO_PER_STEP = 4


class Reader(BasePredictor):
    """Reads answers as every arm does; its own predictors look for the first label, or for a tag.

    Its examples say `Output:` before an answer, but nothing does after the last input; in bare text this adds it.
    """

    def __init__(self, llm: APILLM, job: Job):
        super().__init__(llm)
        self.job = job
        labels = ", ".join(label.lower() for label in job.labels or ())
        self.extraction_description = f"The task is to classify the texts into one of those classes: {labels}."

    def predict(self, prompts: Any, xs: list[str], system_prompts: Any = None) -> Any:
        """Answers to inputs, and inputs with their answers."""
        return super().predict(prompts, [x + cue_of(self.job) for x in xs], system_prompts)

    def _extract_preds(self, preds: list[str]) -> list[str]:
        return [self.job.read(pred, "", ("",))[0].lower() for pred in preds]


class Stop(BaseCallback):
    """Ends the search when another step like the last would go beyond the budget."""

    def __init__(self, job: Job):
        super().__init__()
        self.job, self.steps, self.before = job, 0, counts(job.url)["task"]["calls"]

    def on_step_end(self, optimizer: Any) -> bool:
        """Whether to go on."""
        spent = counts(self.job.url)["task"]["calls"]
        last, self.before, self.steps = spent - self.before, spent, self.steps + 1
        return last > 0 and spent + last <= self.job.budget


class Errors(logging.Handler):
    """What the optimiser logs in place of raising it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what was caught."""
        caught = record.exc_info[1] if record.exc_info else None
        self.found.append(f"{record.getMessage()[:60]} {caught}" if caught else record.getMessage()[:120])


def search(job: Job) -> Result:
    """Run the optimiser of the variant."""
    if not job.labels:
        raise ValueError("promptolution's search needs a task of classification here")
    random.seed(job.seed)
    np.random.seed(job.seed)
    errors = Errors()
    logging.getLogger("promptolution").addHandler(errors)
    task_llm, proposer = (llm(job, role) for role in ("task", "proposer"))
    predictor = Reader(task_llm, job)
    # It aligns labels with rows by place after dropping repeated inputs, so there must be none; labels must be lower.
    dev = pd.DataFrame([(input, targets[0].lower()) for input, targets in job.dev], columns=["x", "y"])
    shots = pd.DataFrame([(input, targets[0].lower()) for input, targets in job.train], columns=["x", "y"])
    capo = job.variant == "capo"
    task = ClassificationTask(
        dev,
        task_description=job.instruction,
        n_subsamples=min(len(dev), max(5, job.budget // BLOCK_SHARE) if capo else SUBSET),
        eval_strategy="sequential_block",
        seed=job.seed,
    )
    prompts = [job.instruction]
    if job.variant != "opro":
        prompts += create_prompt_variation([job.instruction] * (POPULATION - 1), proposer)
    shared: dict[str, Any] = dict(
        predictor=predictor, task=task, meta_llm=proposer, initial_prompts=prompts, callbacks=[stop := Stop(job)]
    )
    optimizer: Any
    if capo:
        # Bare text is no reasoning: the model would go on with the pattern of the prompt.
        reasoned = job.frame == "chat"
        optimizer = CAPO(df_few_shots=shots, max_n_blocks_eval=BLOCKS, create_fs_reasoning=reasoned, **shared)
    elif job.variant == "opro":
        optimizer = OPRO(num_instructions_per_step=OPRO_PER_STEP, **shared)
    else:
        optimizer = EvoPromptGA(**shared)
    found = optimizer.optimize(n_steps=1000)
    scores = list(optimizer.scores)
    best = found[int(np.argmax(scores))] if len(scores) == len(found) else found[0]
    start = Prompt(job.instruction)
    notes = {
        "steps": stop.steps,
        "shots": len(best.few_shots),
        "accepted": int(best.instruction != start.instruction),
        "begins with other prompts": len(set(prompts)) - 1,
        "errors logged": len(errors.found),
    }
    crash = f"stopped by an error that it logged: {errors.found[-1]}" if any("⛔" in e for e in errors.found) else ""
    return Result(messages(job, best), messages(job, start), changed=best != start, notes=notes, crash=crash)


def llm(job: Job, role: str) -> APILLM:
    """Its client for one role of the endpoint, without retries: what is refused stays refused."""
    limit, temperature = (TASK_TOKENS, 0.0) if role == "task" else (PROPOSER_TOKENS, PROPOSER_TEMPERATURE)
    return APILLM(
        api_url=job.url,
        model_id=role,
        api_key="none",
        max_tokens=limit,
        max_retries=0,
        call_timeout_s=900.0,
        gather_timeout_s=1800.0,
        client_kwargs={"max_retries": 0},
        call_kwargs={"temperature": temperature},
    )


def cue_of(job: Job) -> str:
    """What follows the input."""
    return "\nOutput:" if job.frame == "bare" else ""


def messages(job: Job, prompt: Prompt) -> Any:
    """What its predictor sends."""
    text = f"{prompt.construct_prompt()}\n{MARK}{cue_of(job)}"
    return gapped([{"role": "system", "content": DEFAULT_SYS_PROMPT}, {"role": "user", "content": text}])


if __name__ == "__main__":
    run_program(search)
