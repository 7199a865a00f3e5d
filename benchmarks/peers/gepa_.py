"""gepa itself: the instruction is a system message, the input a message of the user.

Its adapter adds nothing to the user's rows, so in bare text these bring the cue that our own prompts end in.
"""

from __future__ import annotations

from typing import Any

import gepa
from benchmarks.peers.endpoint_limits import PROPOSER_TEMPERATURE, PROPOSER_TOKENS, TASK_TOKENS
from benchmarks.peers.job import MARK, Job, Result, ask, cued, gapped, run_program
from gepa.adapters.default_adapter.default_adapter import DefaultAdapter, EvaluationResult


def search(job: Job) -> Result:
    """Optimise the system message."""
    shown = cued if job.frame == "bare" else str
    targets = {shown(input): gold for input, gold in (*job.train, *job.dev)}

    def messages(instruction: str) -> Any:
        return gapped([{"role": "system", "content": instruction}, {"role": "user", "content": shown(MARK)}])

    def evaluator(data: Any, response: str) -> EvaluationResult:
        """In place of its own, which takes an answer for right that holds the gold answer anywhere."""
        score = job.read(response or "", data["input"], targets[data["input"]])[1]
        told = "The answer is right." if score else f"The answer is wrong; it should be {data['answer']!r}."
        return EvaluationResult(score=score, feedback=told)

    def rows(part: Any) -> list[Any]:
        return [{"input": shown(input), "answer": gold[0], "additional_context": {}} for input, gold in part]

    def reflect(prompt: Any) -> str:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        return ask(job.url, "proposer", messages, tokens=PROPOSER_TOKENS, temperature=PROPOSER_TEMPERATURE)

    sent = dict(api_base=job.url, api_key="none", max_tokens=TASK_TOKENS, temperature=0.0)
    found = gepa.optimize(
        seed_candidate={"system": job.instruction},
        trainset=rows(job.train),
        valset=rows(job.dev),
        adapter=DefaultAdapter("openai/task", evaluator, max_litellm_workers=16, litellm_batch_completion_kwargs=sent),
        reflection_lm=reflect,
        max_metric_calls=job.budget,
        seed=job.seed,
    )
    best = found.best_candidate["system"]
    notes = {"accepted": len(found.candidates) - 1}
    return Result(messages(best), messages(job.instruction), changed=best != job.instruction, notes=notes)


if __name__ == "__main__":
    run_program(search)
