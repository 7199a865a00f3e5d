"""DSPy's MIPROv2, with worked examples (`demos`) or without (`instructions`)."""

from __future__ import annotations

import dspy
from benchmarks.peers.dspy_program import THREADS, configure, end_of, examples, messages_of, program_of, score_of
from benchmarks.peers.endpoint_limits import PROPOSER_TEMPERATURE
from benchmarks.peers.job import Job, Result, run_program

CANDIDATES = 6
"""Instructions and sets of demos that it tries, as in its `light` mode."""
MINIBATCH = 25
FULL_EVERY = 5
"""Trials from one full evaluation to the next."""


def trials_within(budget: int, dev: int, *, demos: bool) -> int:
    """The most trials whose calls fit the budget by its own schedule; at least 1.

    It scores the start on all dev rows, each trial on a minibatch, and the best so far on all dev rows after every
    `FULL_EVERY` trials and at the end. Demos are bootstrapped first: a handful of calls for each set.
    """
    left = budget - dev - (CANDIDATES * 8 if demos else 0)
    trials = 0
    while (trials + 1) * MINIBATCH + ((trials + 1) // FULL_EVERY + 1) * dev <= left:
        trials += 1
    return max(1, trials)


def search(job: Job) -> Result:
    """Compile the program with MIPROv2."""
    task, proposer = configure(job)
    demos = job.variant == "demos"
    trials = trials_within(job.budget, len(job.dev), demos=demos)
    shots = 4 if demos else 0
    optimizer = dspy.MIPROv2(
        metric=lambda example, prediction, trace=None: score_of(job, example, prediction),
        prompt_model=proposer,
        task_model=task,
        auto=None,
        num_candidates=CANDIDATES,
        init_temperature=PROPOSER_TEMPERATURE,
        max_bootstrapped_demos=shots,
        max_labeled_demos=shots,
        num_threads=THREADS,
        max_errors=10**6,
        seed=job.seed + 1,  # it takes 0 for "not given"
    )
    start = program_of(job)
    found = optimizer.compile(
        start.deepcopy(),
        trainset=examples(job.train),
        valset=examples(job.dev),
        num_trials=trials,
        minibatch=len(job.dev) > MINIBATCH,
        minibatch_size=min(MINIBATCH, len(job.dev)),
        minibatch_full_eval_steps=FULL_EVERY,
        # It would describe one predictor and the rows to itself, in a dozen calls whose answers are no sentences.
        program_aware_proposer=False,
        data_aware_proposer=False,
    )
    worded = found.signature.instructions != start.signature.instructions
    notes = {"trials": trials, "demos": len(found.demos), "accepted": int(worded)}
    return Result(
        messages_of(job, found),
        messages_of(job, start),
        changed=worded or bool(found.demos),
        notes=notes,
        end=end_of(job),
    )


if __name__ == "__main__":
    run_program(search)
