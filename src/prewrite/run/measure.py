"""After training: choose the prompt of an instruction on dev rows, then open the test set, once.

With `parts` other than the instruction alone, the trained rewriter's wordings compete in a search of the whole prompt;
with the instruction alone, the rewrite is chosen as the paper does.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from prewrite.choosing.candidates import Candidate
from prewrite.choosing.choose import Choice, choose_rewrite, competitors
from prewrite.choosing.evaluate import evaluate
from prewrite.choosing.exemplars import random_set
from prewrite.choosing.race import Selection, corrected_estimate
from prewrite.run.build import InstructionRows, choice_settings, open_untrained_rewriters
from prewrite.run.config import TrainConfig
from prewrite.run.search import append_candidates, find_prompt, initial_prompt, prompt_lengths, test_prompt, timed
from prewrite.run_folder import RunFolder
from prewrite.scoring.prompt import TaskPrompt
from prewrite.scoring.rewards import TaskReward

if TYPE_CHECKING:
    from prewrite.rewriter.rewriter import Rewriter

logger = logging.getLogger(__name__)

BASELINES = (
    "trained greedy",
    "untrained greedy",
    "warm-started greedy",
    "best of samples before RL",
    "4 random exemplars",
)
"""What `--baselines` tests beside the initial instruction and the rewrite, as far as it is there. Where training rows
are few, so are exemplars."""
EXEMPLARS = 4


def measure(
    config: TrainConfig,
    instructions: Sequence[InstructionRows],
    rewriter: Rewriter,
    reward: TaskReward,
    run: RunFolder,
    *,
    train_seconds: float,
    kept_step: int,
) -> dict[str, Any]:
    """Choose and test the prompt of every instruction; what `result.json` holds.

    `kept_step` is the update whose policy the rewriter is.
    """
    seconds = {"train": train_seconds}
    choose = choose_and_test if config.wording_alone else search_and_test
    results = [
        choose(config, rows, rewriter, reward, run, seconds) | {"rewriter": config.base_model} for rows in instructions
    ]
    for found in results:
        fall = fall_in_training(run, found["instruction"], kept_step)
        found["verdict"] = " ".join(filter(None, [found["verdict"], fall]))
    if results[0]["rewrite"]:  # an empty one is the rewriter's fault, and no prompt
        TaskPrompt.from_json(results[0]["prompt"]).save(run.prompt)
    result = results[0] if len(results) == 1 else {**results[0], "verdict": overall(results), "tasks": results}
    usage = reward.evaluator.task_model.usage.as_dict()  # type: ignore[attr-defined]  # the run's is always counted
    left_out = reward.evaluator.left_out.to_json()
    return {**result, "left_out": left_out, "cost": {"task_model": usage, "seconds": seconds}}


def fall_in_training(run: RunFolder, instruction: str, kept_step: int) -> str:
    """A sentence where training made the greedy rewrite worse on dev rows, at its end or as kept; else nothing."""
    scores = {
        row["step"]: (100 * row["score"], row["n"])
        for row in run.read_rows(run.rewrites)
        if row["event"] == "dev_eval" and row["instruction"] == instruction and row["score"] is not None
    }
    last_step = max(scores, default=0)
    if 0 not in scores or last_step == 0:
        return ""
    (before, rows), (last, _), (kept, _) = scores[0], scores[last_step], scores.get(kept_step, scores[last_step])
    if kept_step == 0:
        return (
            f"Training made the greedy rewrite no better: {before:.1f} on {rows} dev rows before it, {last:.1f} after "
            f"update {last_step}; the rewriter is as it was before."
        )
    if kept < before:
        return (
            f"Training made the greedy rewrite worse: {before:.1f} on {rows} dev rows before it, {kept:.1f} after "
            f"update {kept_step}, whose policy was kept."
        )
    if last < before:
        return (
            f"At its end training had made the greedy rewrite worse: {before:.1f} on {rows} dev rows before it, "
            f"{last:.1f} after update {last_step}; the policy of update {kept_step} was kept, with {kept:.1f}."
        )
    return ""


def search_and_test(
    config: TrainConfig,
    rows: InstructionRows,
    rewriter: Rewriter,
    reward: TaskReward,
    run: RunFolder,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """The best prompt with the trained rewriter's wordings, measured on test; a result row.

    Beside its parts the greedy rewrite alone is tested (PRewrite-I), and with `baselines` what training must beat.
    """
    initial = initial_prompt(config, rows, reward.evaluator)
    greedy = rewriter.greedy(rows.instruction)
    samples = config.num_candidates if config.strategy == "S" else 0
    with timed(seconds, "search", reward.evaluator):
        wordings, refused = competitors(
            rows.instruction,
            rewriter,
            reward,
            list(rows.dev),
            num_candidates=samples,
            remembered=best_rollouts(run, rows.instruction, samples),
            seed=config.seed,
        )
        run.append(run.rewrites, refused)
        found = find_prompt(config, rows, reward.evaluator, wordings)
        append_candidates(run, rows, found)
        beside, control = {"trained greedy": initial.with_instruction(greedy)} if greedy else {}, None
        if config.baselines:
            texts, before = untrained_greedy(config, rows, rewriter)
            as_many, _ = competitors(
                rows.instruction,
                before,
                reward,
                list(rows.dev),
                num_candidates=len(wordings),
                num_competitors=len(wordings),
                seed=config.seed,
            )
            control = find_prompt(config, rows, reward.evaluator, as_many)
            beside |= {name: initial.with_instruction(text) for name, text in texts.items()}
            beside["same search before RL"] = control.prompt
            beside |= random_exemplars(config, rows, initial)
    result = test_prompt(config, rows, reward, run, found, seconds, beside=beside)
    return result | {
        "greedy": greedy,
        "strategy": config.strategy,
        "control": control.to_json() if control is not None else None,
    }


def choose_and_test(
    config: TrainConfig,
    rows: InstructionRows,
    rewriter: Rewriter,
    reward: TaskReward,
    run: RunFolder,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """The greedy rewrite (PRewrite-I) or the best of samples on dev (PRewrite-S), measured on test; a result row.

    Adds the phases' times to `seconds`.
    """
    evaluator, instruction, dev_rows = reward.evaluator, rows.instruction, list(rows.dev)
    choice = control = None
    with timed(seconds, "search", reward.evaluator):
        greedy = rewriter.greedy(instruction)
        broken = reward.broken_constraints(greedy)
        if broken and config.strategy == "I":
            logger.warning("the initial instruction is kept: the greedy rewrite breaks %s", " and ".join(broken))
        instructions: dict[str, str | TaskPrompt] = {
            "initial": instruction,
            "rewrite": instruction if broken else greedy,
        }
        if config.strategy == "S":
            remembered = best_rollouts(run, instruction, config.num_candidates)
            choice = choose(config, rows, rewriter, reward, remembered=remembered, complete=rows.test is None)
            run.append(run.rewrites, [*choice.refused, *choice.rows])
            instructions["rewrite"] = choice.rewrite
        if config.baselines:
            others, control = baselines(config, rows, reward, rewriter, choice)
            instructions |= {"trained greedy": greedy, **others}

    with timed(seconds, "test", reward.evaluator):
        if rows.test is not None:
            evaluation = evaluate(evaluator, instructions, list(rows.test), primary="rewrite", seed=config.seed)
            run.append(run.items, evaluation.items())
            measured = {"verdict": evaluation.verdict("rewrite"), "test": evaluation.to_json()}
            if choice is not None:
                picked = choice.selection
                scores = {"initial": picked.mean(picked.initial), "rewrite": picked.mean(picked.chosen)}
                measured["dev"] = {"n": len(picked.raced), "scores": scores}
        else:
            assert choice is not None  # the settings allow no other strategy without test rows
            measured = estimate_from_dev(choice.selection, seed=config.seed)
    texts = {name: evaluator.prompt_of(prompt).instruction for name, prompt in instructions.items()}
    initial = initial_prompt(config, rows, evaluator)
    chosen = initial.with_instruction(texts["rewrite"])
    return {
        "instruction": instruction,
        "prompt": chosen.to_json(),
        "prompt_tokens": prompt_lengths(config, evaluator, initial, chosen),
        "rewrite": texts["rewrite"],
        "greedy": greedy,
        "strategy": config.strategy,
        **measured,
        "selection": choice.selection.to_json() if choice is not None else None,
        "control": control.selection.to_json() if control is not None else None,
        "guards": {name: reward.penalties(text, instruction, dev_rows) for name, text in texts.items()},
        "fidelity": dict(zip(texts, reward.fidelities(list(texts.values()), instruction), strict=True)),
        "task_model": evaluator.task_model.name,
        "decoding": evaluator.decoding_of(dev_rows[0]),
        "metric": evaluator.metric_of(dev_rows[0]),
    }


def choose(config: TrainConfig, rows: InstructionRows, rewriter: Rewriter, reward: TaskReward, **more: Any) -> Choice:
    """`choose_rewrite` on the dev rows, as the settings say; the same for the trained rewriter and its control."""
    return choose_rewrite(
        rows.instruction,
        rewriter,
        reward,
        list(rows.dev),
        **choice_settings(config),
        **more,
    )


def baselines(
    config: TrainConfig, rows: InstructionRows, reward: TaskReward, trained: Rewriter, choice: Choice | None
) -> tuple[dict[str, str | TaskPrompt], Choice]:
    """What RL must beat, and how the control chose: the same search as `choice`, by the rewriter before RL.

    The control has as many candidates in the race as the trained rewriter had, on the same rows and by the same rules.
    """
    texts, before = untrained_greedy(config, rows, trained)
    found: dict[str, str | TaskPrompt] = {**texts}
    as_many = None if choice is None else len(choice.selection.candidates)
    control = choose(config, rows, before, reward, num_competitors=as_many)
    found["best of samples before RL"] = control.rewrite
    found |= random_exemplars(config, rows, reward.evaluator.prompt_of(rows.instruction))
    return {name: prompt for name, prompt in found.items() if prompt}, control


def random_exemplars(config: TrainConfig, rows: InstructionRows, initial: TaskPrompt) -> dict[str, TaskPrompt]:
    """The initial prompt with randomly drawn exemplars, by its name; nothing where there are no training rows."""
    if rows.train is None:
        return {}
    shown = random_set(list(rows.train), EXEMPLARS, seed=config.seed)
    return {f"{len(shown)} random exemplars": replace(initial, exemplars=shown)}


def untrained_greedy(config: TrainConfig, rows: InstructionRows, trained: Rewriter) -> tuple[dict[str, str], Rewriter]:
    """The greedy rewrites before RL by their rewriters' names, and the rewriter that training began with."""
    texts = {}
    for name, before in open_untrained_rewriters(config, trained.settings):  # the last one is where training began
        texts[f"{name} greedy"] = before.greedy(rows.instruction)
    return {name: text for name, text in texts.items() if text}, before


def best_rollouts(run: RunFolder, instruction: str, count: int) -> list[Candidate]:
    """The `count` distinct rewrites of `instruction` that did best in training, against the others of their update.

    Training has scored hundreds of rewrites by now, on few rows each; dev decides whether the luckiest were also good.
    A reward is taken relative to its update's mean, because every update has its own examples.
    """
    updates: dict[int, list[dict[str, Any]]] = {}
    for row in run.read_rows(run.rollouts):
        if row["instruction"] == instruction and row["rewrite"]:
            updates.setdefault(row["step"], []).append(row)
    lead: dict[str, float] = {}
    for rows in updates.values():
        mean = sum(row["reward"] for row in rows) / len(rows)
        for row in rows:
            lead[row["rewrite"]] = max(lead.get(row["rewrite"], -1.0), row["reward"] - mean)
    best = sorted(lead, key=lambda rewrite: -lead[rewrite])[:count]
    return [Candidate(rewrite, "rollout") for rewrite in best]


def estimate_from_dev(selection: Selection, *, seed: int) -> dict[str, Any]:
    """The verdict and the dev scores of a run that holds out no test rows, corrected for the choice."""
    corrected = corrected_estimate(selection, seed=seed)
    chosen, initial = selection.scores[[selection.chosen, selection.initial]]
    scores = {"initial": float(np.nanmean(initial)), "rewrite": float(np.nanmean(chosen))}
    dev = {"n": int((~np.isnan(chosen)).sum()), "scores": scores, "corrected": corrected.to_json()}
    return {"verdict": corrected.verdict(), "test": None, "dev": dev}


def overall(results: Sequence[dict[str, Any]]) -> str:
    """The verdict on several instructions, in a sentence."""
    signs = []  # of the significant differences, 0 for the others
    for result in results:
        if result["test"]:
            test = result["test"]
            found = test["differences"][test["primary"]]  # significant by interval and p-value, as one verdict is
            signs.append(float(np.sign(found["mean"])) if found["significant"] else 0.0)
        else:
            found = result["dev"]["corrected"]
            signs.append(float(found["gain_low"] > 0) - float(found["gain_high"] < 0))
    gains, losses = signs.count(1.0), signs.count(-1.0)
    return (
        f"Of {len(results)} instructions {gains} gained significantly, {losses} lost, "
        f"and {len(results) - gains - losses} changed too little to tell."
    )
