"""A training run, top to bottom.

    config -> data -> meta prompt -> task model -> reward -> trainer -> train -> choose -> test -> report

`run_training` is what `prewrite train` and `finetune.py` do. `build.py` makes the parts from the settings,
`measure.py` chooses and tests.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from prewrite.data import Splits
from prewrite.errors import BudgetExceededError, MetricError, StorageError, TaskModelError, TrainingError
from prewrite.report.render import build_report
from prewrite.rewriter.meta_prompts import load_meta_prompt
from prewrite.run.build import (
    InstructionRows,
    open_evaluator,
    open_instructions,
    open_mixture,
    open_splits,
    open_trainer,
    open_training_reward,
    resolved,
    trainer_settings,
)
from prewrite.run.checks import check_constraints, check_models, check_processes, check_server
from prewrite.run.config import ChoiceConfig, TrainConfig
from prewrite.run.estimate import estimate_line
from prewrite.run.measure import measure
from prewrite.run.progress import phase_line, stop_on_interrupt, training_bar
from prewrite.run.record import open_run_folder
from prewrite.run.search import check_prompt_lengths, check_search_calls
from prewrite.run.tracking import check_tracker, tracking
from prewrite.run_folder import RunFolder
from prewrite.scoring.guards import language_note
from prewrite.task_models.budget import budget_of
from prewrite.task_models.ledger import read as read_ledger
from prewrite.train import processes
from prewrite.train.algorithms import ALGORITHMS, Trainer

logger = logging.getLogger(__name__)


class Trained(NamedTuple):
    """A finished training, and what is needed to measure it."""

    trainer: Trainer
    instructions: list[InstructionRows]
    run: RunFolder


def run_training(config: TrainConfig, argv: Sequence[str] = ()) -> dict[str, Any]:
    """Train a rewriter and measure it; returns what `result.json` holds.

    The test set is opened once, at the end. After a stop request (Ctrl-C) the result is `{"stopped_at": step}`, and
    the run can go on with `resume`. Of several processes the main one measures; the others return nothing.
    """
    with ExitStack() as until_end:
        trainer, instructions, run = train_rewriter(config, argv, until_end)
        if not processes.is_main():
            del trainer
            processes.leave()
            return {}
        processes.leave()
        if trainer.stop_requested:
            return {"stopped_at": trainer.updates, "run": str(run.path)}
        with saying_how_to_go_on(run), run.replacing_result():
            result = measure(
                config,
                instructions,
                trainer.rewriter(),
                trainer.reward,
                run,
                train_seconds=trainer.cost.seconds,
                kept_step=trainer.kept_step,
            )
            run.write_json(run.result, result)
        build_report(run.path)
        return result


def train_rewriter(config: TrainConfig, argv: Sequence[str], until_end: ExitStack) -> Trained:
    """Train and save the rewriter, without choosing or testing. No other run may write to its folder `until_end`."""
    main, resume_from = processes.is_main(), None
    if config.resume:
        resume_from = RunFolder.open(config.output_dir).newest_checkpoint()
    elif main:  # the other processes may come when its folder is there already
        RunFolder.check_new(config.output_dir, overwrite=config.overwrite)
    check_processes(config, processes.count())
    check_tracker(config.report_to)
    check_models(config)
    trainer_settings(config)  # trl_overrides may hold what another setting decides
    splits = open_splits(config)
    instructions = open_instructions(config, splits)
    check_constraints(config, instructions)
    if not config.wording_alone:
        check_search_calls(config, instructions)
    mixture = open_mixture(config, splits)
    load_meta_prompt(config.meta_family)
    check_server(config)

    # Here torch is imported: what is wrong above is reported before that takes seconds.
    with phase_line("loading"):
        trainer_class = ALGORITHMS[config.algorithm].trainer_class()  # one that the installed TRL lacks says so here
    config = resolved(config)
    groups = min(config.instructions_per_step, len(mixture.rows))
    trainer_class.check_settings(trainer_settings(config), groups=groups)
    processes.join()
    warn(config, splits, instructions)

    with phase_line("loading"):
        evaluator = open_evaluator(config)
        check_prompt_lengths(config, instructions, evaluator)
        reward = open_training_reward(config, evaluator, splits)

    if main:
        run = RunFolder(Path(config.output_dir))
        until_end.enter_context(run.sole_writer())
        if config.resume:
            read_ledger(run.budget)  # one that was changed is told before anything is
        run = open_run_folder(config, argv, splits, evaluator.task_model, processes=processes.count())
        if (budget := budget_of(evaluator.task_model)) is not None:
            until_end.enter_context(budget.kept_in(run.budget))
        if config.resume and resume_from is None:
            logger.warning("%s has no checkpoint yet: the run begins anew, with the answers of the cache", run.path)
            run.truncate_all(after_step=-1)
        logger.info("Estimate: %s", estimate_line(config, splits, instructions, reward))
        send = until_end.enter_context(tracking(config.report_to, run))
    else:
        run = RunFolder(Path(config.output_dir))

    usage = evaluator.task_model.usage  # type: ignore[attr-defined]  # the run's is always counted
    with training_bar(config.max_steps, usage, shown=main) as progress:

        def tell(step: int, metrics: dict[str, float]) -> None:
            progress(step, metrics)
            if main:
                send()

        trainer = open_trainer(config, splits, mixture, reward, run, tell)
        with saying_how_to_go_on(run), stop_on_interrupt(trainer):
            trainer.train(resume_from_checkpoint=resume_from)
    return Trained(trainer, instructions, run)


def race_settings(config: TrainConfig) -> list[str]:
    """The settings of the race that are not at their defaults."""
    defaults = ChoiceConfig(dataset=config.dataset)
    names = ("race", "practical_delta", "race_items")
    return [name for name in names if getattr(config, name) != getattr(defaults, name)]


def warn(config: TrainConfig, splits: Sequence[Splits], instructions: Sequence[InstructionRows]) -> None:
    """Say what about the data may surprise."""
    for part in splits:
        for note in part.notes():
            logger.warning("%s", note)
    if not config.wording_alone and (unused := race_settings(config)):
        logger.warning(
            "%s: of no effect here; the race is for parts instruction, and search_calls bounds this search",
            ", ".join(unused),
        )
    if not config.hold_out_test:
        logger.warning(
            "no test rows are held out, so the wording alone is chosen: only that choice can be corrected for"
        )
    foreign = [found for rows in instructions if (found := language_note(rows.instruction))]
    if config.guards and foreign:
        logger.warning("%s", foreign[0])


@contextmanager
def saying_how_to_go_on(run: RunFolder) -> Iterator[None]:
    """What the task model, the budget or the user ends in here can go on, and how is said."""
    try:
        yield
    except (TaskModelError, BudgetExceededError, MetricError, StorageError) as error:
        raise type(error)(f"{error}\n{how_to_go_on(run)}") from error
    except TrainingError as error:
        saved = list(run.checkpoints_by_step().values())
        raise TrainingError(f"{error}" + (f"\nSaved: {saved[-1]}." if saved else "")) from error
    except KeyboardInterrupt:
        print(f"\n{how_to_go_on(run)}", file=sys.stderr)
        raise


def how_to_go_on(run: RunFolder) -> str:
    """What is left of a run that was ended, and the way on."""
    saved = list(run.checkpoints_by_step().values())
    saying = f"Saved: {saved[-1]}." if saved else "No update was saved yet."
    return f"{saying} Answers are in the cache. Go on with: prewrite train --resume {run.path}"
