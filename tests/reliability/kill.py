"""Kills training runs at random moments, lets them go on, and compares what they leave with undisturbed runs.

    python tests/reliability/kill.py --rounds 100 --model toy --algorithm ppo grpo rloo --dtype bfloat16 float32

A round starts `prewrite train`, kills it with SIGKILL, starts it again with `--resume`, up to three times, and lets it
end; with `--signal KILL TERM INT` it is asked to stop at times instead. Half of the signals come before a random file
operation in the run folder or the cache, the others at a random moment after the run folder appeared. Compared are the
bytes of `FILES` and of the weights, without `MAY_DIFFER`. `warm-start` and `train-reward` (`COMMANDS`) cannot be
resumed: after a kill their folder must be whole or not there, and where it is not they are run once more.

The undisturbed runs are made by another process with another seed of Python's hashes. Runs are forks of processes that
have imported everything: to import torch takes longer than a run of the toy. `--keep FOLDER` keeps what was written.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve()
FILES = ("result.json", "prompt.json", "splits.json", "rollouts.jsonl", "rewrites.jsonl", "candidates.jsonl",
         "items.jsonl", "metrics.jsonl")  # fmt: skip
WEIGHTS = "rewriter/adapter/adapter_model.safetensors"
MAY_DIFFER = ("time/", "cost")
"""How fields begin that tell time and cost: a run that was killed took longer, and found answers in the cache."""
MOST_KILLS = 3
COMPANY = 1e-3
STOPPED, REFUSED = 130, 2  # the exit codes after Ctrl-C or SIGTERM, and after an error
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
OPERATIONS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "sqlite3.connect")

TOY_FLAGS = ["--max_steps", "4", "--learning_rate", "1e-3", "--rewrites_per_step", "8", "--examples_per_rewrite", "3",
             "--response_length", "6", "--dev_examples", "6", "--save_steps", "1", "--eval_steps", "1",
             "--search_calls", "120", "--num_candidates", "4"]  # fmt: skip
EMBEDDED_FLAGS = ["--dataset", "demo", "--max_steps", "3", "--rewrites_per_step", "4", "--examples_per_rewrite", "4",
                  "--response_length", "24", "--dev_examples", "8", "--save_steps", "1", "--eval_steps", "1",
                  "--search_calls", "60", "--num_candidates", "2", "--test_examples", "16"]  # fmt: skip
VARIANTS = {
    "search": ["--strategy", "S", "--guards", "none"],
    "several": ["--instructions_per_step", "2", "--reward_mode", "soft"],
    "patience": ["--patience", "1", "--save_steps", "3", "--guards", "none"],
    "choice": ["--parts", "instruction", "--strategy", "S", "--baselines", "--guards", "none"],
    "learned": ["--reward_mode", "model", "--real_every", "2", "--guards", "none"],
    "budget": ["--strategy", "S", "--guards", "none", "--max_task_calls"],
    "no_cache": ["--no_cache", "--strategy", "S", "--guards", "none"],
}
"""What runs of the toy differ in, beside algorithm and dtype; `several` has two instructions. The limit of `budget` is
what the undisturbed run asks: one that was killed has no call to spare for questions that it asks again."""
NO_LIMIT = "1000000"
COMMANDS = {
    "warm_start": ["warm-start", "--epochs", "1"],
    "train_reward": ["train-reward", "--run", "scored", "--epochs", "2", "--learning_rate", "2e-2"],
}
"""Kinds that are no training of a rewriter; algorithm and dtype are of no effect on them."""


class Run(NamedTuple):
    """One kind of run."""

    model: str
    algorithm: str
    dtype: str
    variant: str

    @property
    def name(self) -> str:
        return "-".join(self)

    def argv(self, data: Path) -> list[str]:
        """Its command, in whose folder `run` is written; `data` holds the toy."""
        if self.variant in COMMANDS:
            words = [str(data / word) if word == "scored" else word for word in COMMANDS[self.variant]]
            return [*words, "--base_model", str(data / "model"), "--output_dir", "run"]
        flags = ["train", "--output_dir", "run", "--algorithm", self.algorithm]
        flags += ["--task_model_options", f"dtype={self.dtype}", *VARIANTS[self.variant]]
        if self.model == "embedded":
            return [*flags, *(flag for flag in EMBEDDED_FLAGS if flag not in flags)]
        toy = str(data / "model")
        rows = str(data / ("two.jsonl" if self.variant == "several" else "one.jsonl"))
        if self.variant == "learned":
            flags += ["--reward_model", str(data / "reward_model")]
        models = ["--base_model", toy, "--task_model", f"hf:{toy}", "--fidelity_model", toy, "--dataset", rows]
        flags += [NO_LIMIT] if self.variant == "budget" else []
        return [*flags[:1], *TOY_FLAGS, *flags[1:], *models]


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    """The exit code; negative for a signal."""
    seconds: float
    """From the moment that its run folder was there to its end."""


def make_toy(data: Path) -> None:
    """A model of 13 words that finds more of an instruction in some texts than in others, and rows of one and of two
    instructions."""
    import torch
    from toy import toy_model
    from transformers import LlamaForCausalLM

    from toy_cli import ROWS

    model, tokenizer = toy_model()
    model.config.initializer_range = 0.3
    torch.manual_seed(5)
    LlamaForCausalLM(model.config).save_pretrained(data / "model")
    tokenizer.save_pretrained(data / "model")
    others = [row | {"instruction": "answer now", "input": f"please {row['input']}"} for row in ROWS]
    make_reward_model(str(data / "model"), data / "reward_model")
    make_scored(data / "scored")
    for name, rows in (("one", ROWS), ("two", [*ROWS, *others])):
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_reward_model(toy: str, folder: Path) -> None:
    """A reward model that has learned nothing: what it estimates is as good as any number."""
    import torch
    from peft import LoraConfig, get_peft_model

    from prewrite.train.reward_model import LearnedReward, RewardModelSettings, load_untrained

    torch.manual_seed(0)
    model, tokenizer = load_untrained(toy)
    model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=2, target_modules="all-linear"))
    settings = RewardModelSettings(toy, "auto", f"hf:{toy}", 0.1, {}, 0.5, {})
    LearnedReward(model, tokenizer, settings).save(folder)


def make_scored(folder: Path) -> None:
    """A run folder whose rewrites earn more with one word in them, for `train-reward` to learn from."""
    from toy import INSTRUCTION, WORDS

    from prewrite.run_folder import RunFolder

    run, rng = RunFolder.create(folder), random.Random(0)
    run.write_json(run.config, {"config": {"reward_mode": "auto", "task_model": "scripted"}})
    for step in range(1, 13):
        texts = [" ".join(rng.choices(WORDS[3:], k=4)) for _ in range(12)]
        grades = [0.5 * ("step" in text.split()) for text in texts]
        run.append(run.rollouts, [
            {"step": step, "instruction": INSTRUCTION, "rewrite": text, "reward": grade, "score": grade,
             "parts": {"task": grade}, "guards": {}} for text, grade in zip(texts, grades, strict=True)
        ])  # fmt: skip


# ---- in the process of a run ----------------------------------------------------------------------------------------


def watch_task_model(log: Path, *, company: float) -> None:
    """Append to `log` how many questions each call of the task model holds, before it is answered.

    With `company` log-probabilities depend on how many prompts are in a call, as those of a large model in bf16 depend
    on what else is in the batch; that of 13 words is too small to show it.
    """
    import numpy as np

    from prewrite.scoring.fidelity import PROMPT
    from prewrite.task_models.hf import HFTaskModel

    judging = PROMPT[: PROMPT.index("{")]
    for method in ("label_logprobs", "target_logprobs", "generate"):
        inner = getattr(HFTaskModel, method)

        def watched(self: Any, prompts: Any, *more: Any, inner: Any = inner) -> Any:
            if not str(prompts[0]).startswith(judging):  # the judge's questions are no task-model calls
                with log.open("a") as file:
                    file.write(f"{len(prompts)}\n")
            found = inner(self, prompts, *more)
            if isinstance(found, np.ndarray):
                return found * (1 + company * len(prompts))
            return [value if isinstance(value, str) else value * (1 + company * len(prompts)) for value in found]

        setattr(HFTaskModel, method, watched)


def count_operations(folder: Path, die_at: int | None, by: signal.Signals) -> Counter[str]:
    """Count what this process changes among the files of `folder`; it sends itself `by` before number `die_at`."""
    counts: Counter[str] = Counter()
    inside = str(folder)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            if not isinstance(args[2], int) or not args[2] & WRITING:
                return
        elif event not in OPERATIONS:
            return
        path = os.fsdecode(args[0]) if isinstance(args[0], str | bytes | os.PathLike) else ""
        if not os.path.abspath(path).startswith(inside) or path.endswith(".log"):
            return
        counts["operations"] += 1
        if counts["operations"] == die_at:
            os.kill(os.getpid(), by)

    sys.addaudithook(hook)
    return counts


def be_a_run(argv: list[str], folder: Path, die_at: int | None, by: signal.Signals) -> None:
    """What the forked process does; it never returns."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs behind it without
        os.chdir(folder)
        os.environ["PREWRITE_ANSWER_CACHE"] = str(folder / "answers.sqlite")
        screen = os.open(folder / "screen.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(screen, 1)
        os.dup2(screen, 2)
        log = folder / f"asked-{time.monotonic_ns():020d}.log"
        watch_task_model(log, company=0.0 if "demo" in argv else COMPANY)
        counts = count_operations(folder, die_at, by)
        from prewrite.cli.main import main

        code = main(argv)
        (folder / "operations.log").write_text(str(counts["operations"]))
        sys.stdout.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
        raise
    finally:
        os._exit(code)


# ---- in the process that kills --------------------------------------------------------------------------------------


def start(
    argv: list[str],
    folder: Path,
    *,
    die_at: int | None = None,
    die_after: float | None = None,
    by: signal.Signals = signal.SIGKILL,
) -> Ended:
    """Run `prewrite argv` in `folder` to its end, or until the signal `by` ends it: before its file operation number
    `die_at`, or `die_after` seconds after its run folder is there."""
    process = os.fork()
    if not process:
        be_a_run(argv, folder, die_at, by)
    began = None if argv[0] == "train" else time.monotonic()
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        now = time.monotonic()
        if began is None and (done or (folder / "run" / "config.json").exists()):
            began = now
        if done:
            return Ended(os.waitstatus_to_exitcode(status), now - (began or now))
        if began is not None and die_after is not None and now - began >= die_after:
            os.kill(process, by)
            die_after = None
        time.sleep(0.002)


def asked(folder: Path) -> list[list[int]]:
    """How many questions each call of the task model held, by process; the first one first."""
    return [[int(line) for line in log.read_text().split()] for log in sorted(folder.glob("asked-*.log"))]


def without(value: Any) -> Any:
    """`value` without the fields that may differ."""
    if isinstance(value, dict):
        return {name: without(found) for name, found in value.items() if not name.startswith(MAY_DIFFER)}
    return [without(found) for found in value] if isinstance(value, list) else value


def contents(run: Path) -> dict[str, Any]:
    """What is compared of a run, by file."""
    found: dict[str, Any] = {WEIGHTS: (run / WEIGHTS).read_bytes()}
    for name in FILES:
        text = (run / name).read_text(encoding="utf-8") if (run / name).exists() else None
        if text is not None and name in ("result.json", "metrics.jsonl"):
            rows = [text] if name == "result.json" else text.splitlines()
            found[name] = [json.dumps(without(json.loads(row))) for row in rows]
        else:
            found[name] = text
    for checkpoint in sorted((run / "checkpoints").iterdir()):
        for file in ("policy.safetensors", "adapter_model.safetensors", "best.safetensors"):
            if (checkpoint / file).exists():
                found[f"{checkpoint.name}/{file}"] = (checkpoint / file).read_bytes()
    found["left behind"] = left_behind(run)
    return found


def make_straight(runs: list[Run], work: Path) -> None:
    """The undisturbed run of each kind, in `work/NAME`."""
    for run in runs:
        folder = work / run.name
        folder.mkdir()
        ended = start(run.argv(work), folder)
        if ended.code:
            sys.exit(f"the undisturbed run {run.name} failed:\n{(folder / 'screen.log').read_text()}")
        (folder / "seconds.log").write_text(str(ended.seconds))


class Outcome(NamedTuple):
    """What a round found."""

    kills: list[str]
    """How far each killed process had come."""
    differing: list[str]
    """Files that are not those of the undisturbed run, or what went wrong."""
    again: int
    """Questions that were asked once more than in the undisturbed run."""
    under_way: int
    """Questions that were being answered when a process was killed: so many may be asked again."""


def play(run: Run, work: Path, folder: Path, rng: random.Random, signals: list[signal.Signals]) -> Outcome:
    """One round, in which processes are ended by some of `signals`."""
    if run.variant in COMMANDS:
        return play_command(run, work, folder, rng, signals)
    straight = work / run.name
    limit = sum(map(sum, asked(straight)))
    operations = int((straight / "operations.log").read_text())
    seconds = float((straight / "seconds.log").read_text())
    folder.mkdir()
    kills: list[str] = []
    for _ in range(rng.randint(1, MOST_KILLS)):
        by, at, after = rng.choice(signals), rng.randint(1, operations), rng.uniform(0, seconds)
        way: dict[str, Any] = {"die_at": at} if rng.random() < 0.5 else {"die_after": after}
        before = left_behind(folder / "run")  # of a killed one; the next may be stopped before it could tidy up
        ended = start(going_on(run, work, folder, limit), folder, by=by, **way)
        if ended.code != (-by if by == signal.SIGKILL else STOPPED):
            break
        kills.append(f"{reached(folder / 'run')} ({by.name[3:]})")
        left = [name for name in left_behind(folder / "run") if name not in before]
        if by != signal.SIGKILL and left:
            return Outcome(kills, [f"left behind: {left}"], 0, 0)
    else:
        ended = start(going_on(run, work, folder, limit), folder)
    if run.variant == "budget" and (overspent := beyond(folder, limit)):
        return Outcome(kills, [overspent], 0, 0)
    if run.variant == "budget" and ended.code == REFUSED and f"max_task_calls is {limit}" in screen(folder):
        kills.append("the limit")
        ended = start(going_on(run, work, folder), folder)
    if ended.code:
        return Outcome(kills, [f"exit code {ended.code}:\n{screen(folder)[-2000:]}"], 0, 0)
    wanted, found = contents(straight / "run"), contents(folder / "run")
    differing = [name for name in sorted(wanted.keys() | found.keys()) if wanted.get(name) != found.get(name)]
    if "--no_cache" in run.argv(work):
        return Outcome(kills, differing, 0, 0)
    calls = [call for call in asked(folder) if call]
    again = sum(map(sum, calls)) - sum(map(sum, asked(straight)))
    under_way = sum(call[-1] for call in calls[:-1])
    if again > under_way:
        differing.append(f"{again} questions were asked again, of which {under_way} were under way")
    return Outcome(kills, differing, again, under_way)


def play_command(run: Run, work: Path, folder: Path, rng: random.Random, signals: list[signal.Signals]) -> Outcome:
    """One round of a command of `COMMANDS`."""
    straight, made = work / run.name, folder / "run"
    operations, seconds = (float((straight / f"{name}.log").read_text()) for name in ("operations", "seconds"))
    wanted = files_of(straight / "run")
    folder.mkdir()
    kills: list[str] = []
    for _ in range(rng.randint(1, MOST_KILLS)):
        by, at, after = rng.choice(signals), rng.randint(1, int(operations)), rng.uniform(0, seconds)
        way: dict[str, Any] = {"die_at": at} if rng.random() < 0.5 else {"die_after": after}
        ended = start(run.argv(work), folder, by=by, **way)
        killed = ended.code == (-by if by == signal.SIGKILL else STOPPED)
        if killed:
            kills.append(f"{'whole' if made.exists() else 'not there'} ({by.name[3:]})")
        if not killed or made.exists():
            break
    if not made.exists():
        ended = start(run.argv(work), folder)
        if ended.code:
            return Outcome(kills, [f"exit code {ended.code}:\n{screen(folder)[-2000:]}"], 0, 0)
    found = files_of(made)
    return Outcome(kills, [name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)], 0, 0)


def files_of(folder: Path) -> dict[str, Any]:
    """What the files of a folder hold; lists of names in JSON have no order, since peft keeps them as sets."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".json":
            value = json.loads(path.read_text())
            found[name] = {key: sorted(part) if isinstance(part, list) else part for key, part in value.items()}
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def screen(folder: Path) -> str:
    """What the processes of a round have shown."""
    return (folder / "screen.log").read_text()


def beyond(folder: Path, limit: int) -> str | None:
    """What is wrong with the budget of a round: more was asked than the limit, or than the ledger knows."""
    from prewrite.task_models.ledger import read

    made, known = sum(map(sum, asked(folder))), read(folder / "run" / "budget.bin").calls
    return f"{made} questions were asked, {known} are known, {limit} allowed" if not made <= known <= limit else None


def left_behind(run: Path) -> list[str]:
    """Files and folders that are no part of a run: half-written ones."""
    return sorted(path.name for path in run.rglob(".*") if path.name != ".lock")


def going_on(run: Run, work: Path, folder: Path, limit: int | None = None) -> list[str]:
    """The command: with `--resume` where a run is there, and with another limit where it has one."""
    argv = [str(limit) if word == NO_LIMIT and limit is not None else word for word in run.argv(work)]
    return [*argv, *(["--resume"] if (folder / "run" / "config.json").exists() else [])]


def reached(run: Path) -> str:
    """How far a killed run had come."""
    if (run / "report.md").exists():
        return "report"
    if (run / "items.jsonl").exists():
        return "test"
    if (run / "rewriter").exists():
        return "search"
    if (run / "checkpoints").exists():
        return "training"
    return "start"


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--model", choices=("toy", "embedded"), default="toy")
    parser.add_argument("--algorithm", nargs="+", choices=("ppo", "grpo", "rloo"), default=["ppo", "grpo", "rloo"])
    parser.add_argument("--dtype", nargs="+", choices=("bfloat16", "float32"), default=["bfloat16"])
    parser.add_argument("--variant", nargs="+", choices=(*VARIANTS, *COMMANDS), default=["search"])
    parser.add_argument("--signal", nargs="+", choices=("KILL", "TERM", "INT"), default=["KILL"])
    parser.add_argument("--seed", type=int, default=None, help="of the kills; by default another one each time")
    parser.add_argument("--keep", type=Path, help="a new folder for what is written")
    parser.add_argument("--straight", type=Path, help=argparse.SUPPRESS)  # make the undisturbed runs there, and end
    return parser.parse_args(argv)


def preload() -> None:
    """Import what runs need, so that a fork has it, and so that what it has does not change meanwhile."""
    import prewrite.choosing.search
    import prewrite.cli.train
    import prewrite.cli.train_reward
    import prewrite.cli.warm_start
    import prewrite.report.render
    import prewrite.run.train
    import prewrite.task_models.hf
    import prewrite.train.grpo
    import prewrite.train.ppo
    import prewrite.train.reward_model
    import prewrite.train.warm_start  # noqa: F401


def rounds_of(runs: list[Run], count: int) -> Iterator[Run]:
    return itertools.islice(itertools.cycle(runs), count)


def main(argv: list[str] | None = None) -> int:
    """0 where every round ended as the undisturbed run did, else 1."""
    given = parse(argv)
    kinds = itertools.product([given.model], given.algorithm, given.dtype, given.variant)
    runs = [Run(*kind) for kind in kinds][: given.rounds]
    preload()
    if given.straight is not None:
        make_straight(runs, given.straight)
        return 0
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="prewrite-kill-") as temporary:
        work = (given.keep or Path(temporary)).resolve()
        work.mkdir(exist_ok=given.keep is None)
        make_toy(work)
        again = [sys.executable, str(HERE), *(argv if argv is not None else sys.argv[1:]), "--straight", str(work)]
        subprocess.run(again, check=True, env=os.environ | {"PYTHONHASHSEED": "1"})
        signals = [signal.Signals[f"SIG{name}"] for name in given.signal]
        failed, reached_counts, questions = 0, Counter[str](), [0, 0]
        for number, run in enumerate(rounds_of(runs, given.rounds)):
            outcome = play(run, work, work / f"round-{number:04d}", rng, signals)
            failed += bool(outcome.differing)
            reached_counts.update(outcome.kills)
            questions[0] += max(outcome.again, 0)
            questions[1] += outcome.under_way
            verdict = "differs: " + "; ".join(outcome.differing) if outcome.differing else "the same"
            print(
                f"{number + 1:4d} {run.name:32s} ended in {', '.join(outcome.kills) or '-':44s} {verdict}", flush=True
            )
    kills = ", ".join(f"{count} in {phase}" for phase, count in reached_counts.most_common())
    print(f"{given.rounds - failed} of {given.rounds} rounds ended as the undisturbed run did (seed {seed}).")
    print(f"{reached_counts.total()} signals: {kills}.")
    print(f"Asked again: {questions[0]} questions; under way when a process ended: at most {questions[1]}.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2] / "examples")]
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
