"""A training run from settings to result: data -> task model -> reward -> train -> choose -> test -> report.

`run_training` is what `prewrite train` and `finetune.py` do, top to bottom.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

import prewrite
from prewrite.data import PRewriteDataset, Splits
from prewrite.errors import BudgetExceededError, ConfigError, DataError, RunFolderError, TaskModelError
from prewrite.report.render import build_report
from prewrite.rewriter.meta_prompts import load_meta_prompt
from prewrite.rewriter.starter import default_temperature
from prewrite.run.build import open_evaluator, open_fidelity, open_price, open_splits
from prewrite.run.config import TrainConfig
from prewrite.run.measure import Task, active_guards, choose_and_test
from prewrite.run.resume import go_on
from prewrite.run_folder import RunFolder
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.guards import language_note
from prewrite.scoring.rewards import TaskReward
from prewrite.task_models.budget import estimate
from prewrite.train import checkpoint, processes
from prewrite.train.algorithms import ALGORITHMS, Trainer
from prewrite.train.mixture import joined, load_phrasings, mix
from prewrite.train.warm_start import adapter_for

logger = logging.getLogger(__name__)

FORBIDDEN_TEXTS = 2000  # training inputs that the leakage guard knows; beyond that a copy is luck


class Trained(NamedTuple):
    """A finished training and what is needed to measure it."""

    trainer: Trainer
    tasks: list[Task]
    run: RunFolder
    seconds: float


def run_training(config: TrainConfig, argv: Sequence[str] = ()) -> dict[str, Any]:
    """Train a rewriter and measure it; returns what `result.json` holds.

    The test set is opened once, at the end. After a stop request (Ctrl-C) the result is `{"stopped_at": step}`, and
    the run can go on with `resume`. Of several processes the main one measures; the others return nothing.
    """
    trainer, tasks, run, seconds = train_rewriter(config, argv)
    if not processes.is_main():
        del trainer
        processes.leave()
        return {}
    processes.leave()
    if trainer.stop_requested:
        return {"stopped_at": trainer.updates, "run": str(run.path)}
    with run.replacing_result():
        result = measure(config, trainer, tasks, run, phases={"train": seconds})
        run.write_json(run.result, result)
    build_report(run.path)
    return result


def measure(
    config: TrainConfig, trainer: Trainer, tasks: Sequence[Task], run: RunFolder, phases: dict[str, float]
) -> dict[str, Any]:
    """Choose and test a rewrite of every instruction; `phases` gets the seconds of both."""
    results = [choose_and_test(config, task, trainer.rewriter(), trainer.reward, run, phases) for task in tasks]
    result = results[0] if len(results) == 1 else {**results[0], "verdict": overall(results), "tasks": results}
    usage = trainer.reward.evaluator.task_model.usage.as_dict()
    return {**result, "cost": {"task_model": usage, "seconds": phases}}


def open_tasks(config: TrainConfig, splits: Sequence[Splits]) -> list[Task]:
    """The instructions that a rewrite can be chosen for and, where test rows are held out, tested.

    Warns of instructions that have only one of dev and test rows; raises `DataError` where all are like that.
    """
    tasks, left = [], []
    for part in splits:
        trains, devs, tests = (rows.by_instruction() for rows in part)
        for instruction, dev_rows in devs.items():
            test_rows = tests.get(instruction)
            if test_rows is not None and config.test_examples:
                test_rows = sample(test_rows, config.test_examples, seed=config.seed)
            if test_rows is None and config.hold_out_test:
                left.append(f"{instruction!r} has dev rows and no test rows")
            else:
                tasks.append(Task(instruction, trains.get(instruction), dev_rows, test_rows))
        left += [f"{instruction!r} has test rows and no dev rows" for instruction in tests if instruction not in devs]
    if not tasks:
        raise DataError(f"no instruction has both dev and test rows ({left[0]}); use one wording in all files")
    if left:
        logger.warning("neither chosen for nor tested: %d instruction(s), such as %s", len(left), left[0])
    return tasks


def sample(rows: PRewriteDataset, count: int, *, seed: int) -> PRewriteDataset:
    """Up to `count` of the rows, in their order."""
    return rows.select(np.sort(np.random.default_rng(seed).permutation(len(rows))[:count]))


def overall(results: Sequence[dict[str, Any]]) -> str:
    """The verdict on several instructions, in a sentence."""
    signs = []  # of the significant differences, 0 for the others
    for result in results:
        if result["test"]:
            found = result["test"]["differences"]["rewrite"]  # significant by interval and p-value, as one verdict is
            signs.append(float(np.sign(found["mean"])) if found["significant"] else 0.0)
        else:
            found = result["dev"]["corrected"]
            signs.append(float(found["gain_low"] > 0) - float(found["gain_high"] < 0))
    gains, losses = signs.count(1.0), signs.count(-1.0)
    return (
        f"Of {len(results)} instructions {gains} gained significantly, {losses} lost, "
        f"and {len(results) - gains - losses} changed too little to tell."
    )


def train_rewriter(config: TrainConfig, argv: Sequence[str] = ()) -> Trained:
    """Train and save the rewriter, without choosing or testing; the resolved settings are the run's first file."""
    trainer_class = ALGORITHMS[config.algorithm].trainer_class()  # an algorithm that cannot run here must say so first
    config = resolved(config)
    check_processes(config)
    processes.join()
    run = RunFolder.open(config.output_dir) if config.resume else None
    resume_from = checkpoint.latest(run) if run is not None else None
    splits = open_splits(config)
    for part in splits:
        for note in part.notes():
            logger.warning("%s", note)
    tasks = open_tasks(config, splits)
    if config.guards and (note := next(filter(None, (language_note(task.instruction) for task in tasks)), None)):
        logger.warning("%s", note)
    load_meta_prompt(config.meta_family)  # what is missing must end the run here, not in an hour
    evaluator = open_evaluator(config)
    for part in splits:
        evaluator.decoding_of(part.train[0])  # and a capability
    record = run_record(config, argv, evaluator)
    rows = splits[0].to_json() if len(splits) == 1 else {"parts": [part.to_json() for part in splits]}
    if not processes.is_main():
        run = RunFolder(Path(config.output_dir))
    elif run is None:
        run = RunFolder.create(config.output_dir, overwrite=config.overwrite)
        run.write_json(run.config, record)
        run.write_json(run.splits, rows)
    else:
        go_on(run, record, rows)

    if processes.is_main():
        print(f"Estimate: {estimate_line(config, splits, evaluator)}", file=sys.stderr)
    with tqdm(total=config.max_steps, desc="training", unit="update", disable=not processes.is_main()) as bar:
        trainer = build_trainer(trainer_class, config, splits, evaluator, run, bar)
        with stop_on_interrupt(trainer):
            try:
                trainer.train(resume_from_checkpoint=resume_from)
            except (TaskModelError, BudgetExceededError) as error:
                raise type(error)(f"{error}\n{how_to_go_on(run)}") from error
    if processes.is_main() and not trainer.stop_requested:
        trainer.save_rewriter()
    return Trained(trainer, tasks, run, trainer.cost.seconds)


def check_processes(config: TrainConfig) -> None:
    """Raise `ConfigError` for settings that do not fit the number of processes."""
    number = processes.count()
    share, rest = divmod(config.rewrites_per_step, number)
    if rest:
        raise ConfigError(
            f"rewrites_per_step {config.rewrites_per_step} cannot be shared out evenly among {number} processes; "
            f"choose a multiple of {number}"
        )
    if config.micro_batch_size and share % config.micro_batch_size:
        raise ConfigError(
            f"micro_batch_size {config.micro_batch_size} does not divide the {share} rewrites of each of {number} "
            "processes; choose a divisor"
        )
    limits = ("max_task_calls", "max_task_tokens", "max_usd")
    if number > 1 and (limited := next((name for name in limits if getattr(config, name) is not None), None)):
        raise ConfigError(
            f"{limited} is kept by one process and {number} run; leave it out and set a limit where the task model "
            "is served, or start one process"
        )


def resolved(config: TrainConfig) -> TrainConfig:
    """`config` with the settings that follow from the rewriter where they were not given."""
    return replace(config, temperature=config.temperature or default_temperature(config.base_model))


def estimate_line(config: TrainConfig, splits: Sequence[Splits], evaluator: Evaluator) -> str:
    """What the run will ask the task model at most: training, dev evaluations, choice and test."""
    dev_rows = sum(min(len(part.dev), config.dev_examples) for part in splits)
    graded_steps = config.max_steps // (config.real_every if config.reward_mode == "model" else 1)
    writes = any(evaluator.decoding_of(part.train[0]) != "likelihood" for part in splits)
    compared = config.instructions_per_step if config.reward_mode == "soft" and writes else 0  # with the rewrites
    calls = graded_steps * (config.rewrites_per_step + compared) * config.examples_per_rewrite
    calls += (config.max_steps // config.eval_steps + 1) * dev_rows
    if config.strategy == "S":
        rows = sum(min(len(part.dev), config.race_items or len(part.dev)) for part in splits)
        calls += (2 + 2 * config.num_candidates) * rows
    calls += 2 * sum(min(len(part.test), config.test_examples or len(part.test)) for part in splits)
    examples = [part.train[index] for part in splits for index in range(min(20, len(part.train)))]
    prompts = [evaluator.prompt(example.instruction, example) for example in examples]
    return estimate(prompts, calls, output_tokens=64 if writes else 0, price=open_price(config))


def how_to_go_on(run: RunFolder) -> str:
    """What is left of a run that its task model ended."""
    try:
        path = checkpoint.latest(run)
    except RunFolderError:
        return "No update was saved yet: answers are in the cache; run the same command with --overwrite."
    return f"Saved: {path}. Answers are in the cache. Go on with the same command and --resume."


def build_trainer(
    trainer_class: type,
    config: TrainConfig,
    splits: Sequence[Splits],
    evaluator: Evaluator,
    run: RunFolder,
    bar: tqdm,
) -> Trainer:
    """The trainer that `config` describes."""
    from peft import LoraConfig

    trains = [part.train for part in splits]
    phrasings = None
    if config.phrasings is not None:
        phrasings = load_phrasings(config.phrasings, [name for rows in trains for name in rows.by_instruction()])
    decodings = {evaluator.decoding_of(example) for example in (part.train[0] for part in splits)}
    reward = TaskReward(
        evaluator,
        mode=config.reward_mode,
        guards=active_guards(config.guards, decodings),
        guard_weight=config.guard_weight,
        forbidden_texts=[row.input for rows in trains for row in islice(rows, FORBIDDEN_TEXTS // len(trains))],
        **open_reward_model(config),
        fidelity=open_fidelity(config, evaluator),
        min_fidelity=config.min_fidelity,
    )
    lora = LoraConfig(r=config.lora_rank, lora_alpha=2 * config.lora_rank, target_modules="all-linear")
    common: dict[str, Any] = dict(
        meta_family=config.meta_family,
        log_dir=run.path,
        train_dataset=mix(trains, temperature=config.mixture_temperature, phrasings=phrasings),
        dev_dataset=joined([part.dev for part in splits]),
        reward=reward,
        warm_start=adapter_for(config.warm_start, config.base_model, config.meta_family),
        lora=lora if config.lora else None,
        examples_per_rewrite=config.examples_per_rewrite,
        instructions_per_step=config.instructions_per_step,
        max_steps=config.max_steps,
        eval_steps=config.eval_steps,
        patience=config.patience,
        dev_examples=config.dev_examples,
        save_steps=config.save_steps,
        progress=progress_on(bar),
    )
    share = config.rewrites_per_step // processes.count()
    micro = config.micro_batch_size or share
    common |= dict(
        target_kl=config.target_kl,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=share // micro,
        learning_rate=config.learning_rate,
        temperature=config.temperature,
        seed=config.seed,
        report_to=config.report_to,
    )
    common |= ALGORITHMS[config.algorithm].arguments(asdict(config))
    return trainer_class(config.base_model, evaluator, **common, **config.trl_overrides)


def open_reward_model(config: TrainConfig) -> dict[str, Any]:
    """What `TaskReward` is told about the learned reward model; nothing where the task model grades every update."""
    if config.reward_model is None:
        return {}
    from prewrite.train.reward_data import task_model_of
    from prewrite.train.reward_model import LearnedReward

    learned = LearnedReward.load(config.reward_model)
    asked, known = task_model_of(asdict(config)), learned.settings.task_model
    if asked != known:
        logger.warning("reward_model %s learned from grades of %s, not of %s", config.reward_model, known, asked)
    return dict(reward_model=learned, real_every=config.real_every, real_mode=learned.settings.reward_mode)


def progress_on(bar: tqdm):
    """A progress callback that shows reward, KL and dev score on `bar`; tqdm adds the time left."""

    def show(step: int, metrics: dict[str, float]) -> None:
        bar.update(step - bar.n)
        shown = {"reward": f"{metrics['reward/mean']:.3f}", "KL": f"{metrics['kl/mean']:.2f}"}
        if "dev/score" in metrics:
            show.dev = f"{metrics['dev/score']:.3f}"
        bar.set_postfix(shown | ({"dev": show.dev} if show.dev else {}))

    show.dev = ""
    return show


@contextmanager
def stop_on_interrupt(trainer: Trainer) -> Iterator[None]:
    """The first Ctrl-C ends the run after the running update, with a checkpoint; the second one at once."""

    def request_stop(signum: int, frame: Any) -> None:
        if trainer.stop_requested:
            raise KeyboardInterrupt
        trainer.stop_requested = True
        print("\nStopping after this update, with a checkpoint (Ctrl-C again: stop at once) ...", file=sys.stderr)

    try:
        previous = signal.signal(signal.SIGINT, request_stop)
    except ValueError:  # not the main thread, e.g. a notebook's worker: the caller's own handling stays
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def run_record(config: TrainConfig, argv: Sequence[str], evaluator: Evaluator) -> dict[str, Any]:
    """What `config.json` holds: enough to repeat the run."""
    versions = {}
    for package in ("torch", "transformers", "trl", "peft", "accelerate", "numpy"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "prewrite_version": prewrite.__version__,
        "command": "train",
        "argv": list(argv),
        "config": asdict(config),
        "task_model": {"name": evaluator.task_model.name, "identity": evaluator.task_model.identity},
        "versions": {"python": sys.version.split()[0], **versions},
        "processes": processes.count(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
