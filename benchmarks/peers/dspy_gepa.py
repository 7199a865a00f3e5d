"""DSPy's GEPA, which rewrites the instruction by reading wrong answers."""

from __future__ import annotations

from typing import Any

import dspy
from benchmarks.peers.dspy_program import THREADS, configure, end_of, examples, messages_of, program_of, score_of
from benchmarks.peers.job import Job, Result, run_program


def search(job: Job) -> Result:
    """Compile the program with GEPA."""
    _, proposer = configure(job)

    def metric(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
        score = score_of(job, gold, pred)
        feedback = "The answer is right." if score else f"The answer is wrong; it should be {gold.answer!r}."
        return dspy.Prediction(score=score, feedback=feedback)

    optimizer = dspy.GEPA(
        metric,
        max_metric_calls=job.budget,
        reflection_lm=proposer,
        num_threads=THREADS,
        track_stats=True,
        seed=job.seed,
    )
    start = program_of(job)
    found = optimizer.compile(start.deepcopy(), trainset=examples(job.train), valset=examples(job.dev))
    # With a small proposer it may end with the start and no word about it, so what it took is told here.
    notes = {"accepted": len(found.detailed_results.candidates) - 1}
    changed = found.signature.instructions != start.signature.instructions
    return Result(messages_of(job, found), messages_of(job, start), changed=changed, notes=notes, end=end_of(job))


if __name__ == "__main__":
    run_program(search)
