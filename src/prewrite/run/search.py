"""A search of the whole prompt, top to bottom: data -> task model -> wordings -> search on dev -> test -> prompt.json.

`run_search` is what `prewrite search` does. No training: wordings come from a rewriter as it is, from a file, or from
nobody, and exemplars from training rows.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prewrite.choosing.candidates import Candidate, merge, propose
from prewrite.choosing.choose import split_by_guards
from prewrite.choosing.evaluate import evaluate
from prewrite.choosing.halving import calls_of
from prewrite.choosing.search import Found, plan_search, search_prompt
from prewrite.errors import ConfigError
from prewrite.run.build import InstructionRows, open_evaluator, open_instructions, open_reward, open_splits
from prewrite.run.config import SearchConfig
from prewrite.run.record import run_record
from prewrite.run_folder import RunFolder
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.prompt import TaskPrompt
from prewrite.scoring.rewards import TaskReward

logger = logging.getLogger(__name__)


def run_search(config: SearchConfig, argv: Sequence[str] = ()) -> dict[str, Any]:
    """Search a prompt for every instruction of the data, test it, and write the run folder; what `result.json` holds.

    With several instructions `prompt.json` holds the first one's; the others stand in `result.json`.
    """
    splits = open_splits(config)
    instructions = open_instructions(config, splits)
    for note in (note for part in splits for note in part.notes()):
        logger.warning("%s", note)
    evaluator = open_evaluator(config)
    reward = open_reward(config, evaluator, [rows.dev[0] for rows in instructions])

    run = RunFolder.create(config.output_dir, overwrite=config.overwrite)
    run.write_json(run.config, run_record(config, argv, evaluator.task_model, processes=1, command="search"))
    parts = [part.to_json() for part in splits]
    run.write_json(run.splits, parts[0] if len(parts) == 1 else {"parts": parts})

    results, prompts = [], []
    for rows in instructions:
        result, found = search_and_test(config, rows, evaluator, reward, run)
        results.append(result)
        prompts.append(found.prompt)
    usage = evaluator.task_model.usage.as_dict()  # type: ignore[attr-defined]  # the run's is always counted
    result = results[0] if len(results) == 1 else {**results[0], "tasks": results}
    result |= {"left_out": evaluator.left_out.to_json(), "cost": {"task_model": usage}}
    prompts[0].save(run.prompt)
    run.write_json(run.result, result)
    return result


def search_and_test(
    config: SearchConfig, rows: InstructionRows, evaluator: Evaluator, reward: TaskReward, run: RunFolder
) -> tuple[dict[str, Any], Found]:
    """The prompt that a search finds for one instruction, measured on its test rows; a result row."""
    dev, test = list(rows.dev), list(rows.test or ())
    started = time.perf_counter()
    texts = wordings(config, rows, reward) if "instruction" in config.parts else []
    first, second = plan_search(config.search_calls, len(dev), wordings=len(texts))
    print(
        f"Search: up to {calls_of(first) + calls_of(second):,} task-model calls on {len(dev)} dev rows, "
        f"{first[0].candidates} prompts at first, {len(texts)} other wordings; then {len(test)} test rows.",
        file=sys.stderr,
    )
    found = search_prompt(
        evaluator,
        replace(evaluator.around, instruction=rows.instruction, decoding=config.decoding),
        dev,
        train_rows=list(rows.train or ()),
        wordings=texts,
        parts=config.parts,
        calls=config.search_calls,
        seed=config.seed,
    )
    run.append(run.candidates, found.events)
    searched = time.perf_counter()
    evaluation = evaluate(evaluator, steps_of(found), test, primary="prompt", seed=config.seed)
    run.append(run.items, evaluation.items())
    result = {
        "instruction": rows.instruction,
        "prompt": found.prompt.to_json(),
        "verdict": evaluation.verdict("prompt"),
        "test": evaluation.to_json(),
        "search": {
            "calls": found.calls,
            "rows": found.rows,
            "dev_scores": found.dev_scores,
            "source": found.source,
            "offsets": found.offsets,
            "wordings": len(texts),
            "candidates": len(found.events),
        },
        "guards": reward.penalties(found.prompt.instruction, rows.instruction, dev),
        "fidelity": reward.fidelities([found.prompt.instruction], rows.instruction)[0],
        "task_model": evaluator.task_model.name,
        "rewriter": config.rewriter,
        "decoding": evaluator.decoding_of(dev[0]),
        "metric": evaluator.metric_of(dev[0]),
        "seconds": {"search": searched - started, "test": time.perf_counter() - searched},
    }
    return result, found


def steps_of(found: Found) -> dict[str, str | TaskPrompt]:
    """The prompts that show what each part brings: the initial one, each part of the chosen one alone, and all of it.

    A part that the chosen prompt leaves as it was has no step.
    """
    initial, chosen = found.initial, found.prompt
    steps: dict[str, str | TaskPrompt] = {"initial": initial}
    if found.calibrated_initial != initial:
        steps["label offsets"] = found.calibrated_initial
    if chosen.instruction != initial.instruction:
        steps["wording"] = initial.with_instruction(chosen.instruction)
    if chosen.answer_line != initial.answer_line:
        steps["answer line"] = replace(initial, answer_line=chosen.answer_line)
    if chosen.exemplars != initial.exemplars:
        steps["exemplars"] = replace(initial, exemplars=chosen.exemplars, layout=chosen.layout)
    if chosen.label_offsets is not None and len(steps) > 2:
        steps["all but offsets"] = replace(chosen, label_offsets=None)
    return {name: prompt for name, prompt in steps.items() if name == "initial" or prompt != chosen} | {
        "prompt": chosen
    }


def wordings(config: SearchConfig, rows: InstructionRows, reward: TaskReward) -> list[tuple[str, str]]:
    """(text, where it came from) of other wordings of the instruction, without those that a guard refuses."""
    found = [Candidate(rows.instruction, "initial")]
    if config.candidates is not None:
        found += [Candidate(text, "file") for text in read_wordings(config.candidates)]
    if config.rewriter != "none" and config.num_candidates:
        found += propose(open_proposer(config.rewriter), rows.instruction, config.num_candidates, seed=config.seed)
    kept, refused = split_by_guards(merge(found), reward, rows.instruction, list(rows.dev))
    if refused:
        logger.warning("%d of %d wordings refused by guards", len(refused), len(refused) + len(kept) - 1)
    return [(candidate.rewrite, candidate.source) for candidate in kept if candidate.source != "initial"]


def open_proposer(name: str) -> Any:
    """What writes wordings: the rewriter in a run folder, or a model before training, warm-started where one ships."""
    from prewrite.rewriter.rewriter import Rewriter
    from prewrite.rewriter.starter import default_temperature, starter_adapter

    if (Path(name) / "rewriter").is_dir() or (Path(name) / "rewriter.json").is_file():
        return Rewriter.load(name)
    return Rewriter.untrained(name, warm_start=starter_adapter(name), temperature=default_temperature(name))


def read_wordings(file: str) -> list[str]:
    """The lines of a text file that are not blank. Raises `ConfigError`."""
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"candidates {file!r} cannot be read as UTF-8 text ({error})") from None
    if not any(line.strip() for line in lines):
        raise ConfigError(f"candidates {file!r} holds no text; write one wording a line")
    return [line.strip() for line in lines if line.strip()]
