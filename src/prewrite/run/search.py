"""A search of the whole prompt, top to bottom: data -> task model -> wordings -> search on dev -> test -> prompt.json.

`run_search` is what `prewrite search` does: no training, wordings come from a rewriter as it is, from a file, or from
nobody, and exemplars from training rows. `find_prompt` and `test_prompt` are the end of a training run too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from prewrite.choosing.candidates import Candidate, Proposer, merge, propose
from prewrite.choosing.choose import split_by_guards
from prewrite.choosing.evaluate import evaluate
from prewrite.choosing.halving import calls_of
from prewrite.choosing.search import Found, plan_search, search_prompt
from prewrite.choosing.server_rewriter import ServerRewriter
from prewrite.data import Splits
from prewrite.interop.wordings import read_wordings
from prewrite.report.render import build_report
from prewrite.run.build import (
    InstructionRows,
    open_constraints,
    open_evaluator,
    open_instructions,
    open_reward,
    open_splits,
)
from prewrite.run.checks import check_constraints, check_models, check_server, is_run
from prewrite.run.config import WORDING_CALLS, SearchConfig, TrainConfig
from prewrite.run.progress import phase_line
from prewrite.run.record import run_record
from prewrite.run.tracking import check_tracker, tracking
from prewrite.run_folder import RunFolder
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.prompt import TaskPrompt
from prewrite.scoring.rewards import TaskReward
from prewrite.task_models.registry import names_server

logger = logging.getLogger(__name__)

MOST_STEPS = 7
"""Prompts that `steps_of` gives at most: the initial one, four parts alone, all but the offsets, and all."""


def run_search(config: SearchConfig, argv: Sequence[str] = ()) -> dict[str, Any]:
    """Search a prompt for every instruction of the data, test it, and write the run folder; what `result.json` holds.

    With several instructions `prompt.json` holds the first one's; the others stand in `result.json`.
    """
    RunFolder.check_new(config.output_dir, overwrite=config.overwrite)
    check_tracker(config.report_to)
    check_models(config)
    splits = open_splits(config)
    instructions = open_instructions(config, splits)
    for note in (note for part in splits for note in part.notes()):
        logger.warning("%s", note)
    check_constraints(config, instructions)
    check_search_calls(config, instructions)
    if config.candidates is not None:
        read_wordings(config.candidates)  # a file that cannot be used is told before anything is loaded
    check_server(config)
    with phase_line("loading"):
        evaluator = open_evaluator(config)
        check_prompt_lengths(config, instructions, evaluator)
        tries = config.tries_wordings
        proposer = open_proposer(config.rewriter) if tries and config.num_candidates else None
        judging = config if tries else replace(config, fidelity_model="none")
        reward = open_reward(judging, evaluator, [rows.dev[0] for rows in instructions])

    with RunFolder(Path(config.output_dir)).sole_writer():
        return search_and_report(config, argv, splits, instructions, reward, proposer)


def search_and_report(
    config: SearchConfig,
    argv: Sequence[str],
    splits: Sequence[Splits],
    instructions: Sequence[InstructionRows],
    reward: TaskReward,
    proposer: Proposer | None,
) -> dict[str, Any]:
    """The part of `run_search` that writes the run folder."""
    run = RunFolder.create(config.output_dir, overwrite=config.overwrite)
    parts = [part.to_json() for part in splits]
    run.write_json(run.splits, parts[0] if len(parts) == 1 else {"parts": parts})
    run.write_json(run.config, run_record(config, argv, reward.evaluator.task_model, processes=1, command="search"))
    with tracking(config.report_to, run):
        result = search_each(config, instructions, reward, run, proposer)
        run.write_json(run.result, result)
    build_report(run.path)
    return result


def search_each(
    config: SearchConfig,
    instructions: Sequence[InstructionRows],
    reward: TaskReward,
    run: RunFolder,
    proposer: Proposer | None,
) -> dict[str, Any]:
    """Search and test the prompt of every instruction; what `result.json` holds."""
    seconds: dict[str, float] = {}
    evaluator, results = reward.evaluator, []
    for rows in instructions:
        with timed(seconds, "search", evaluator):
            wordings, refused = wordings_of(config, rows, reward, proposer)
            run.append(run.rewrites, refused)
            found = find_prompt(config, rows, evaluator, wordings)
            append_candidates(run, rows, found)
        results.append(test_prompt(config, rows, reward, run, found, seconds) | {"rewriter": config.rewriter})
    result = results[0] if len(results) == 1 else {**results[0], "tasks": results}
    usage = evaluator.task_model.usage.as_dict()  # type: ignore[attr-defined]  # the run's is always counted
    cost: dict[str, Any] = {"task_model": usage, "seconds": seconds}
    if isinstance(proposer, ServerRewriter):
        cost["rewriter"] = proposer.model.usage.as_dict()
    result |= {"left_out": evaluator.left_out.to_json(), "cost": cost}
    TaskPrompt.from_json(results[0]["prompt"]).save(run.prompt)
    return result


def check_search_calls(config: SearchConfig | TrainConfig, instructions: Sequence[InstructionRows]) -> None:
    """Raises `ConfigError` for calls too few to compare two prompts; before anything is trained or paid."""
    for rows in instructions:
        plan_search(config.search_calls, len(rows.dev), wordings=0, parts=config.parts)


def check_prompt_lengths(
    config: SearchConfig | TrainConfig, instructions: Sequence[InstructionRows], evaluator: Evaluator
) -> None:
    """Raises `ConfigError` for an initial prompt that is longer than `max_prompt_tokens`."""
    constraints = open_constraints(config, evaluator)
    for rows in instructions:
        constraints.check_length(initial_prompt(config, rows, evaluator))


@contextmanager
def timed(seconds: dict[str, float], phase: str, evaluator: Evaluator) -> Iterator[None]:
    """Adds the time that the block takes to `seconds[phase]`, and shows it while it runs."""
    started = time.perf_counter()
    with phase_line(phase, evaluator.task_model.usage):  # type: ignore[attr-defined]  # the run's is always counted
        yield
    seconds[phase] = seconds.get(phase, 0.0) + time.perf_counter() - started


def find_prompt(
    config: SearchConfig | TrainConfig, rows: InstructionRows, evaluator: Evaluator, wordings: Sequence[Candidate]
) -> Found:
    """The prompt that the search of the settings finds for one instruction among `wordings` and all other parts."""
    dev, others = list(rows.dev), []
    if "instruction" in config.parts:
        others = [wording for wording in wordings if wording.source != "initial"]
    first, second = plan_search(config.search_calls, len(dev), wordings=len(others), parts=config.parts)
    logger.info(
        f"Search: up to {calls_of(first) + calls_of(second):,} task-model calls on {len(dev)} dev rows, "
        f"{first[0].candidates if first else 1} prompts at first, {len(others)} other wordings{_why_none(config)}."
    )
    return search_prompt(
        evaluator,
        initial_prompt(config, rows, evaluator),
        dev,
        train_rows=list(rows.train or ()),
        wordings=others,
        parts=config.parts,
        constraints=open_constraints(config, evaluator),
        calls=config.search_calls,
        seed=config.seed,
    )


def _why_none(config: SearchConfig | TrainConfig) -> str:
    """What to do for other wordings, where the default asks for none."""
    if not isinstance(config, SearchConfig) or config.tries_wordings or "instruction" not in config.parts:
        return ""
    if config.rewriter != "none" or config.search_calls >= WORDING_CALLS:
        return ""
    return f" (--rewriter embedded asks for some; with {WORDING_CALLS:,} calls or more it is the default)"


def append_candidates(run: RunFolder, rows: InstructionRows, found: Found) -> None:
    """Every prompt of a search, with the instruction that it was for."""
    run.append(run.candidates, ({"instruction": rows.instruction, **event} for event in found.events))


def initial_prompt(config: SearchConfig | TrainConfig, rows: InstructionRows, evaluator: Evaluator) -> TaskPrompt:
    """The prompt that the user starts from: their instruction in the template of the settings."""
    return replace(evaluator.around, instruction=rows.instruction, decoding=config.decoding)


def test_prompt(
    config: SearchConfig | TrainConfig,
    rows: InstructionRows,
    reward: TaskReward,
    run: RunFolder,
    found: Found,
    seconds: dict[str, float],
    *,
    beside: Mapping[str, TaskPrompt] | None = None,
) -> dict[str, Any]:
    """What was found, its parts and the prompts `beside` it, measured on the test rows; a result row."""
    evaluator, dev, test = reward.evaluator, list(rows.dev), list(rows.test or ())
    prompts = steps_of(found)
    prompts |= {name: prompt for name, prompt in (beside or {}).items() if prompt not in prompts.values()}
    with timed(seconds, "test", evaluator):
        evaluation = evaluate(evaluator, prompts, test, primary="prompt", seed=config.seed)
    run.append(run.items, evaluation.items())
    texts = {name: prompt.instruction for name, prompt in prompts.items()}
    return {
        "instruction": rows.instruction,
        "prompt": found.prompt.to_json(),
        "rewrite": found.prompt.instruction,
        "verdict": evaluation.verdict("prompt"),
        "test": evaluation.to_json(),
        "dev": {"n": found.rows, "scores": found.dev_scores},
        "prompt_tokens": prompt_lengths(config, evaluator, found.initial, found.prompt),
        "search": found.to_json() | {"waterfall": waterfall(found)},
        "guards": {name: reward.penalties(text, rows.instruction, dev) for name, text in texts.items()},
        "fidelity": dict(zip(texts, reward.fidelities(list(texts.values()), rows.instruction), strict=True)),
        "task_model": evaluator.task_model.name,
        "decoding": evaluator.decoding_of(dev[0]),
        "metric": evaluator.metric_of(dev[0]),
    }


def prompt_lengths(
    config: SearchConfig | TrainConfig, evaluator: Evaluator, initial: TaskPrompt, chosen: TaskPrompt
) -> dict[str, Any]:
    """Tokens of both prompts without their input, whether they are an estimate, and the most that there may be."""
    return {
        "initial": evaluator.prompt_tokens(initial),
        "prompt": evaluator.prompt_tokens(chosen),
        "estimated": not evaluator.counts_tokens,
        "most": config.max_prompt_tokens,
    }


def steps_of(found: Found) -> dict[str, TaskPrompt]:
    """The prompts that show what each part brings: the initial one, each part of the chosen one alone, and all of it.

    A part that the chosen prompt leaves as it was has no step.
    """
    initial, chosen = found.initial, found.prompt
    steps: dict[str, TaskPrompt] = {"initial": initial}
    if found.calibrated_initial != initial:
        steps["label offsets"] = found.calibrated_initial
    if chosen.instruction != initial.instruction:
        steps["wording"] = initial.with_instruction(chosen.instruction)
    if chosen.answer_line != initial.answer_line:
        steps["answer line"] = replace(initial, answer_line=chosen.answer_line)
    if chosen.exemplars != initial.exemplars:
        steps["exemplars"] = replace(initial, exemplars=chosen.exemplars, layout=chosen.layout)
    plain = replace(chosen, label_offsets=None)
    if plain not in steps.values():
        steps["all but offsets"] = plain
    return {name: prompt for name, prompt in steps.items() if name == "initial" or prompt != chosen} | {
        "prompt": chosen
    }


def waterfall(found: Found) -> list[dict[str, str]]:
    """How the score rises from the initial prompt to the chosen one, part by part.

    Each step names the tested prompt that it ends at and the parts that it adds: exemplars first, which bring most,
    then the words, then the label offsets.
    """
    initial, chosen = found.initial, found.prompt
    words = [
        name
        for name, changed in (
            ("wording", chosen.instruction != initial.instruction),
            ("answer line", chosen.answer_line != initial.answer_line),
        )
        if changed
    ]
    added = [["exemplars"] if chosen.exemplars != initial.exemplars else [], words]
    added.append(["label offsets"] if chosen.label_offsets is not None else [])
    added = [parts for parts in added if parts]
    tested = steps_of(found)
    steps = []
    for number, parts in enumerate(added):
        if number == len(added) - 1:
            at = "prompt"
        elif number == 0 and len(parts) == 1:
            at = parts[0]
        else:
            at = "all but offsets"
        if at in tested:  # two words without exemplars before them have no test of their own
            steps.append({"at": at, "adds": " and ".join(parts)})
    return steps


def wordings_of(
    config: SearchConfig, rows: InstructionRows, reward: TaskReward, proposer: Proposer | None
) -> tuple[list[Candidate], list[dict[str, Any]]]:
    """Other wordings of the instruction, of the proposer and of the file; and a row for each that a guard refuses."""
    found = [Candidate(rows.instruction, "initial")]
    if "instruction" not in config.parts:
        return found, []
    if config.candidates is not None:
        found += [Candidate(text, "file") for text in read_wordings(config.candidates)]
    if proposer is not None:
        found += propose(proposer, rows.instruction, config.num_candidates, seed=config.seed)
    kept, refused = split_by_guards(merge(found), reward, rows.instruction, list(rows.dev))
    if refused:
        logger.warning("%d of %d wordings refused by guards", len(refused), len(refused) + len(kept) - 1)
    return kept, refused


def open_proposer(name: str) -> Proposer | None:
    """What writes wordings: a model on a server, the rewriter in a run folder, a model before training, or nobody.

    One before training is warm-started where an adapter ships.
    """
    if name == "none":
        return None
    if names_server(name):
        return ServerRewriter.open(name)
    from prewrite.rewriter.rewriter import Rewriter
    from prewrite.rewriter.starter import default_temperature, starter_adapter

    if is_run(name):
        return Rewriter.load(name)
    return Rewriter.untrained(name, warm_start=starter_adapter(name), temperature=default_temperature(name))
