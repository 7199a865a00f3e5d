"""Seconds and memory of one PPO update: stock TRL beside ours, and ours with a real task model.

    python benchmarks/ppo_step.py                        all parts; stock takes minutes
    python benchmarks/ppo_step.py --parts ours task      without stock
    python benchmarks/ppo_step.py --parts stock ours --dry      one layer and few tokens, to try the script

First table: 32 rollouts of 48 new tokens, prompt about 70 tokens, 4 PPO epochs of one mini-batch, no early end, a
reward that costs nothing. `stock` is `trl.PPOTrainer` as it comes (full finetuning, a separate value model and a
reference copy, fp32, micro-batches of 8, which suit it better than 32); `stock-lora` and ours have LoRA r16, in bf16
where the CPU has the instructions, else in fp32.
Second table: the task model `hf` on sst2, 16 rewrites x 16 examples, 2 PPO epochs. Beside each part stands its
roofline: its multiplications over the rate of a large matrix product, or the weights that it has to read over the
bandwidth of memory, whichever takes longer; both are measured in the same process.

Each part runs in a process of its own. Wall seconds depend on who else uses the machine; CPU seconds much less.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
INSTRUCTION = "Decide whether the review is positive or negative."
PARTS = ("stock", "stock-lora", "ours", "task")
ROLLOUTS, TOKENS, EPOCHS = 32, 48, 4


class Times:
    """Wall and CPU seconds by phase."""

    def __init__(self):
        self.wall: dict[str, float] = defaultdict(float)
        self.cpu: dict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str):
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall[name] += time.perf_counter() - wall
        self.cpu[name] += time.process_time() - cpu

    def timed(self, owner, attribute: str, name: str) -> None:
        """Count the calls of `owner.attribute` as phase `name`."""
        original = getattr(owner, attribute)

        def wrapper(*args, **kwargs):
            with self.phase(name):
                return original(*args, **kwargs)

        setattr(owner, attribute, wrapper)

    def take(self) -> dict[str, dict[str, float]]:
        taken = {"wall": dict(self.wall), "cpu": dict(self.cpu)}
        self.wall.clear()
        self.cpu.clear()
        return taken


def matmul_rate(dtype) -> float:
    """Multiply-add operations per second x 2 of a (1024, 576) x (576, 3072) product; the best of 10."""
    import torch

    x, w = torch.randn(1024, 576, dtype=dtype), torch.randn(3072, 576, dtype=dtype)
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        torch.nn.functional.linear(x, w)
        best = min(best, time.perf_counter() - started)
    return 2 * 1024 * 576 * 3072 / best


def bandwidth() -> float:
    """Bytes a second that this process reads from memory; the best of 5 sums over a gigabyte."""
    import torch

    block = torch.ones(2**28, dtype=torch.float32)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        block.sum()
        best = min(best, time.perf_counter() - started)
    return 4 * len(block) / best


def load(dry: bool, dtype: str = "auto"):
    from prewrite.rewriter.starter import load_base

    model, tokenizer = load_base("embedded", dtype=dtype)
    return cut(model, dry), tokenizer


def cut(model, dry: bool):
    """The model, or in a dry run its first layer."""
    if dry:
        model.model.layers = model.model.layers[:1]
        model.config.num_hidden_layers = 1
    return model


def length(dry: bool) -> int:
    """Tokens of a rollout."""
    return 4 if dry else TOKENS


def lora_config():
    from peft import LoraConfig

    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")


# ---- stock TRL ----


def run_stock(dry: bool, updates: int, *, lora: bool) -> list[dict]:
    """Stock `PPOTrainer` with a constant reward in the shape of a reward module."""
    import torch
    from transformers import AutoModelForSequenceClassification, set_seed
    from transformers.modeling_outputs import BaseModelOutput
    from trl import PPOConfig, PPOTrainer
    from trl.trainer import ppo_trainer

    from prewrite.lm.embedded import resolve_model
    from prewrite.lm.loading import pick_dtype
    from prewrite.rewriter.meta_prompts import build_meta_prompt
    from prewrite.rewriter.rewriter import query_ids
    from prewrite.train.trainer import clear_sampling_defaults

    class ConstantReward(torch.nn.Module):
        """What TRL reads from a reward model: a backbone and a score per position."""

        base_model_prefix = "backbone"

        def __init__(self):
            super().__init__()
            self.backbone = self._Backbone()

        class _Backbone(torch.nn.Module):
            def forward(self, input_ids, **kwargs):
                scores = torch.linspace(0, 1, len(input_ids))[:, None, None]
                return BaseModelOutput(hidden_states=(scores.expand(-1, input_ids.shape[1], 1),))

        def score(self, hidden):
            return hidden

    dtype = pick_dtype() if lora else torch.float32
    name = str(dtype).removeprefix("torch.")
    model, tokenizer = load(dry, name)
    clear_sampling_defaults(model)
    reference = None if lora else load(dry, name)[0]
    value = cut(
        AutoModelForSequenceClassification.from_pretrained(resolve_model("embedded"), num_labels=1, dtype=dtype),
        dry,
    )
    value.config.pad_token_id = tokenizer.pad_token_id
    prompt = query_ids(build_meta_prompt(INSTRUCTION), tokenizer)
    args = PPOConfig(
        output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=False, temperature=1.0, response_length=length(dry),
        num_ppo_epochs=EPOCHS, num_mini_batches=1, per_device_train_batch_size=8, gradient_accumulation_steps=4,
        local_rollout_forward_batch_size=ROLLOUTS, total_episodes=ROLLOUTS * updates, num_sample_generations=0,
        save_strategy="no", report_to="none", gradient_checkpointing=False, seed=1,
    )  # fmt: skip
    set_seed(1)
    rows = [{"input_ids": prompt}] * (ROLLOUTS * 64)  # many batches a pass: at its last one TRL steps too often
    trainer = PPOTrainer(
        args, tokenizer, model, reference, ConstantReward(), rows, value, peft_config=lora_config() if lora else None
    )
    for printer in (ppo_trainer.PrinterCallback, ppo_trainer.DEFAULT_PROGRESS_CALLBACK):
        trainer.callback_handler.pop_callback(printer)
    times, results = Times(), []
    times.timed(ppo_trainer, "batch_generation", "rollout")
    times.timed(ppo_trainer, "get_reward", "forward passes")
    plain_forward = ppo_trainer.forward

    def forward(*args):
        if torch.is_grad_enabled():
            return plain_forward(*args)  # belongs to the update
        with times.phase("forward passes"):
            return plain_forward(*args)

    ppo_trainer.forward = forward
    started = [time.perf_counter(), time.process_time()]

    def log(metrics, *rest):
        taken = times.take()
        for kind, clock, since in zip(("wall", "cpu"), (time.perf_counter, time.process_time), started, strict=True):
            taken[kind]["update"] = clock() - since - sum(taken[kind].values())
        results.append(taken)
        started[:] = [time.perf_counter(), time.process_time()]

    trainer.log = log
    trainer.train()
    return results


# ---- ours ----


class ConstantGrades:
    """A reward that costs nothing and differs between rewrites."""

    def __call__(self, rewrites, instruction, examples, *, step=0, refused_too=True):
        from prewrite.scoring.rewards import Graded
        from prewrite.types import Reward

        scores = [at / len(rewrites) for at in range(len(rewrites))]
        return [Graded(Reward(score, {"task": score}), ()) for score in scores]


def run_ours(dry: bool, updates: int, *, with_task: bool) -> list[dict]:
    """Our trainer; phases timed from outside, by wrapping its methods."""
    from prewrite.data import PRewriteDataset, load_splits
    from prewrite.lm import sampling
    from prewrite.rewriter.starter import load_base, starter_adapter
    from prewrite.scoring.evaluator import Evaluator
    from prewrite.scoring.rewards import TaskReward
    from prewrite.train.ppo import PRewritePPOTrainer
    from prewrite.types import RewriteExample

    counted = Counted()
    if with_task:
        from prewrite.task_models.hf import HFTaskModel

        task_model = HFTaskModel("embedded")
        counted.watch(task_model)
        rows = load_splits(DATA / "sst2").train
        reward = TaskReward(Evaluator(task_model))
        model, tokenizer = load_base("embedded", warm_start=starter_adapter("embedded"))
        settings = {"per_device_train_batch_size": 16, "num_ppo_epochs": 2}
    else:
        rows = PRewriteDataset.from_examples([RewriteExample(INSTRUCTION, "x", "y")])
        reward = ConstantGrades()
        model, tokenizer = load(dry)
        settings = {"per_device_train_batch_size": ROLLOUTS, "num_ppo_epochs": EPOCHS}
    times, results = Times(), []
    trainer = PRewritePPOTrainer(
        (model, tokenizer), Evaluator(None) if not with_task else reward.evaluator, log_dir=tempfile.mkdtemp(),
        train_dataset=rows, reward=reward, lora=lora_config(), max_steps=updates, examples_per_rewrite=16,
        response_length=length(dry), num_mini_batches=1, seed=1, save_steps=10**9, **settings,
    )  # fmt: skip
    if not with_task:
        trainer.end_ids = ()  # no early end, as stock has none
    trainer.save_checkpoint = lambda: None
    times.timed(sampling, "sample", "rollout")
    times.timed(trainer, "forward", "reference")  # the policy's own, where sampling has not told it
    times.timed(trainer, "reference", "reference")
    times.timed(trainer, "score", "task model")
    plain_update = trainer.update

    def update(batch, *args, **kwargs):
        taken = times.take()
        with times.phase("update"):
            losses = _untimed(times, trainer, plain_update, batch, *args, **kwargs)
        both = times.take()
        for kind in ("wall", "cpu"):
            taken[kind]["update"] = both[kind]["update"]
        sizes = {
            "prompt": int(batch.prompts.mask.sum()), "tokens": int(batch.completions.mask.sum()),
            "task_tokens": counted.tokens, "task_passes": counted.passes, "epochs": settings["num_ppo_epochs"],
            "steps": batch.completions.mask.shape[1],
        }  # fmt: skip
        counted.tokens = counted.passes = 0
        results.append(taken | {"sizes": sizes})
        return losses

    trainer.update = update
    trainer.train()
    for result in results:
        result["operations"], result["bytes"] = (
            operations(model, result["sizes"]),
            weights_read(model, result["sizes"]),
        )
    return results


def _untimed(times, trainer, function, *args, **kwargs):
    """Run `function` with the forward passes inside it counted with it, not apart."""
    timed, trainer.forward = trainer.forward, type(trainer).forward.__get__(trainer)
    try:
        return function(*args, **kwargs)
    finally:
        trainer.forward = timed


class Counted:
    """Counts the tokens that a task model computes, and the passes that this takes."""

    def __init__(self):
        self.tokens = self.passes = 0

    def watch(self, task_model) -> None:
        plain = task_model.trunk

        class Watched:
            def __call__(watched, ids, positions, cache, mask=None, **kwargs):
                self.tokens += ids.numel() if mask is None else int(mask[:, -ids.shape[1] :].sum())
                self.passes += 1
                return plain(ids, positions, cache, mask, **kwargs)

            def __getattr__(watched, name):
                return getattr(plain, name)

        task_model.trunk = Watched()


def trunk_size(model) -> int:
    """Numbers in the matrices of the layers, adapters left out."""
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.dim() == 2 and "lora_" not in name and "embed_tokens" not in name and "lm_head" not in name
    )


def operations(model, sizes: dict) -> dict[str, float]:
    """Multiplications and additions that each phase needs at least; attention (a few percent) is left out."""
    trunk, head = 2 * trunk_size(model), 2 * model.config.vocab_size * model.config.hidden_size
    once = trunk * (sizes["prompt"] + sizes["tokens"]) + head * sizes["tokens"]
    return {
        "rollout": once,
        "reference": once,
        "task model": trunk * sizes["task_tokens"],
        "update": 2 * once * sizes["epochs"],  # frozen weights: forward, and the gradient of the inputs
    }


def weights_read(model, sizes: dict) -> dict[str, float]:
    """Bytes of weights that each phase reads at least: all of them once a pass, and a pass for every token written."""
    size = model.dtype.itemsize
    whole = size * (trunk_size(model) + model.config.vocab_size * model.config.hidden_size)
    return {
        "rollout": whole * sizes["steps"],
        "reference": whole,
        "task model": whole * sizes["task_passes"],
        "update": 2 * whole * sizes["epochs"],
    }


# ---- the parts and the tables ----


def run_part(part: str, dry: bool, updates: int) -> dict:
    """One part, in this process."""
    import torch

    from prewrite.lm.loading import pick_dtype

    dtype = torch.float32 if part == "stock" else pick_dtype()
    rates = [matmul_rate(dtype)]
    if part.startswith("stock"):
        results = run_stock(dry, updates, lora=part == "stock-lora")
    else:
        results = run_ours(dry, updates, with_task=part == "task")
    rates.append(matmul_rate(dtype))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {
        "results": results,
        "rates": rates,
        "bandwidth": bandwidth(),  # last: its block of memory is not part of the peak
        "peak_mb": peak,
        "dtype": str(dtype).removeprefix("torch."),
    }


def median(results: list[dict], kind: str, phase: str) -> float:
    return statistics.median(result[kind].get(phase, 0.0) for result in results)


def totals(results: list[dict], kind: str) -> float:
    return statistics.median(sum(result[kind].values()) for result in results)


def print_first(found: dict[str, dict]) -> None:
    phases = ("rollout", "forward passes", "reference", "update")
    print(f"\n{ROLLOUTS} rollouts x {TOKENS} tokens, {EPOCHS} PPO epochs; seconds per update, wall (CPU), medians")
    print("| part | dtype | " + " | ".join(phases) + " | total | episodes/s | peak MB |")
    print("|---" * (len(phases) + 5) + "|")
    for part, run in found.items():
        results = run["results"]
        cells = [f"{median(results, 'wall', p):.1f} ({median(results, 'cpu', p):.1f})" for p in phases]
        wall, cpu = totals(results, "wall"), totals(results, "cpu")
        print(
            f"| {part} | {run['dtype']} | " + " | ".join(cells)
            + f" | {wall:.1f} ({cpu:.1f}) | {ROLLOUTS / wall:.2f} | {run['peak_mb']:.0f} |"
        )  # fmt: skip
    ours = found.get("ours")
    for part, run in found.items():
        if ours is not None and part != "ours":
            ratios = [totals(run["results"], kind) / totals(ours["results"], kind) for kind in ("wall", "cpu")]
            memory = ours["peak_mb"] / run["peak_mb"]
            print(f"{part} / ours: {ratios[0]:.1f}x wall, {ratios[1]:.1f}x CPU; our peak is {memory:.0%} of its")


def print_second(title: str, run: dict) -> None:
    results, rate, width = run["results"], max(run["rates"]), run["bandwidth"]
    rates = ", ".join(f"{r / 1e9:.0f}" for r in run["rates"])
    print(f"\n{title}, {run['dtype']}; {rates} GFLOP/s before and after, {width / 1e9:.0f} GB/s")
    print("| phase | wall s | CPU s | roofline s | bound by | wall / roofline |\n|---|---|---|---|---|---|")
    total = 0.0
    for phase in ("rollout", "reference", "task model", "update"):
        products = statistics.median(result["operations"][phase] for result in results) / rate
        reads = statistics.median(result["bytes"][phase] for result in results) / width
        wall, cpu, roof = median(results, "wall", phase), median(results, "cpu", phase), max(products, reads)
        total += roof if products else 0.0
        if products > 0:
            by = "products" if products >= reads else "memory"
            print(f"| {phase} | {wall:.1f} | {cpu:.1f} | {roof:.1f} | {by} | {wall / roof:.1f} |")
    wall = totals(results, "wall")
    print(f"| total | {wall:.1f} | {totals(results, 'cpu'):.1f} | {total:.1f} | | {wall / total:.1f} |")
    print(f"sizes {results[-1]['sizes']}, peak {run['peak_mb']:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--updates", type=int, default=3, help="updates of ours; the median is shown")
    parser.add_argument("--stock_updates", type=int, default=1, help="updates of stock")
    parser.add_argument("--dry", action="store_true", help="one layer and few tokens, to try the script")
    parser.add_argument("--only", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        updates = args.stock_updates if args.only.startswith("stock") else args.updates
        print(json.dumps(run_part(args.only, args.dry, updates)))
        return
    found: dict[str, dict] = {}
    for part in args.parts:
        command = [sys.executable, __file__, "--only", part, "--updates", str(args.updates)]
        command += ["--stock_updates", str(args.stock_updates)]
        command += ["--dry"] if args.dry else []
        print(f"{part} ...", file=sys.stderr, flush=True)
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found[part] = json.loads(output.splitlines()[-1])
    first = {part: run for part, run in found.items() if part != "task"}
    if first:
        print_first(first)
    if "ours" in found:
        print_second("Ours against its roofline", found["ours"])
    if "task" in found:
        print_second("With the task model (hf, sst2, 16 x 16, 2 PPO epochs)", found["task"])


if __name__ == "__main__":
    main()
