"""What both optimisers of DSPy share: the program, how its answers are read, and its prompt as messages."""

from __future__ import annotations

from typing import Any

import dspy
from benchmarks.peers.endpoint_limits import PROPOSER_TEMPERATURE, PROPOSER_TOKENS, TASK_TOKENS
from benchmarks.peers.job import MARK, GappedMessage, Job, gapped
from benchmarks.peers.speaker import Frame
from dspy.utils.exceptions import AdapterParseError

THREADS = 16
MARKER = "[[ ##"
"""What DSPy's field markers begin with."""


class PlainAdapter(dspy.ChatAdapter):
    """DSPy's own prompts, and a milder reading: an answer without field markers is the only output field as it is.

    A small model often writes the answer alone. By default DSPy would then ask a second time, for JSON, and count both
    answers as wrong. In bare text the task's prompt ends in the marker of its answer, as each demo shows it, and the
    next marker ends the answer.
    """

    def __init__(self, frame: Frame) -> None:
        super().__init__(use_json_adapter_fallback=False)
        self.frame = frame

    def format(self, signature: Any, demos: Any, inputs: Any) -> list[dict[str, Any]]:
        """DSPy's messages; see the class docstring."""
        messages = list(super().format(signature, demos, inputs))
        if self.frame == "bare" and list(signature.output_fields) == ["answer"]:
            messages[-1] = messages[-1] | {"content": f"{messages[-1]['content']}\n\n[[ ## answer ## ]]"}
        return messages

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        """The output fields; see the class docstring."""
        if self.frame == "bare" and list(signature.output_fields) == ["answer"]:
            return {"answer": completion.partition(MARKER)[0].strip()}
        try:
            return dict(super().parse(signature, completion))
        except AdapterParseError:
            fields = list(signature.output_fields)
            if len(fields) != 1 or not completion.strip():
                raise
            return {fields[0]: completion.partition(MARKER)[0].strip() or completion.strip()}


def configure(job: Job) -> tuple[dspy.LM, dspy.LM]:
    """The task model and the proposer, without DSPy's cache, which would hide calls from the endpoint."""
    shared: dict[str, Any] = dict(api_base=job.url, api_key="none", cache=False, num_retries=0)
    task = dspy.LM("openai/task", temperature=0.0, max_tokens=TASK_TOKENS, **shared)
    proposer = dspy.LM("openai/proposer", temperature=PROPOSER_TEMPERATURE, max_tokens=PROPOSER_TOKENS, **shared)
    dspy.configure(lm=task, adapter=PlainAdapter(job.frame), num_threads=THREADS, max_errors=10**6)
    return task, proposer


def program_of(job: Job) -> dspy.Predict:
    """One predictor with the initial instruction, as DSPy's own tutorials write it."""
    return dspy.Predict(dspy.Signature("input -> answer", job.instruction))


def examples(rows: Any) -> list[dspy.Example]:
    """Rows as DSPy knows them."""
    return [
        dspy.Example(input=input, answer=targets[0], targets=targets).with_inputs("input") for input, targets in rows
    ]


def score_of(job: Job, example: Any, prediction: Any) -> float:
    """The score of a prediction by the reading that every arm has."""
    return job.read(str(prediction.answer), example.input, example.targets)[1]


def end_of(job: Job) -> str:
    """What ends an answer, where the answer's own marker stands before it."""
    return MARKER if job.frame == "bare" else ""


def messages_of(job: Job, program: dspy.Predict) -> tuple[GappedMessage, ...]:
    """What the program sends."""
    found = PlainAdapter(job.frame).format(program.signature, program.demos, {"input": MARK})
    return gapped(found)
