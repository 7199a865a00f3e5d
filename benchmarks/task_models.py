"""Speed of the task models, engines in turn, and how far their label scores agree.

    python benchmarks/task_models.py                       speed: naive, hf three ways, floor; openvino if installed
    python benchmarks/task_models.py --server openai:smollm2@http://127.0.0.1:8124/v1        and the HTTP path
    python benchmarks/task_models.py --agreement 300       agreement with hf fp32 instead of speed
    python benchmarks/task_models.py --cache 1000000       the answer cache instead

Each engine runs once per round, and no prompt comes twice to an engine that remembers prompts. The best and the median
round are printed. Start the server with `tests/servers/vllm_server.py`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prewrite.task_models.hf import WORTH

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TASKS = {"sst2": ("positive", "negative"), "agnews": ("World", "Sports", "Business", "Technology")}
FLOOR = "floor, in the default dtype"
EXEMPLARS = 4
LONG = {
    "sst2": (
        "You will be given one sentence from a film review. Decide what the writer thinks of the film as a whole. If "
        "the writer liked it, praises the acting, the story, the pictures or the music, or recommends seeing it, the "
        "sentiment is positive. If the writer was bored, annoyed or disappointed, mocks the film, or advises against "
        "it, the sentiment is negative. Irony counts as what it means, not as what it says. When praise and blame "
        "are mixed, follow the stronger of the two. Answer with exactly one word, either positive or negative, and "
        "nothing else before or after it."
    ),
    "agnews": (
        "You will be given the title and the first lines of a news article. Decide which section of a newspaper it "
        "belongs to. World is for politics between countries, wars, elections, disasters and public affairs. Sports "
        "is for games, players, teams, results and tournaments. Business is for companies, markets, prices, jobs and "
        "the economy. Technology is for computers, the internet, science, space and new devices. When two sections "
        "would fit, choose what the first sentence is mainly about. Answer with exactly one of the words World, "
        "Sports, Business or Technology, and nothing else."
    ),
}


class Case(NamedTuple):
    """Prompts of one task under one instruction, in parts that share no row."""

    name: str
    labels: tuple[str, ...]
    parts: list[list[str]]


def cases(split: str, rows: int, parts: int, lengths: Sequence[str]) -> Iterator[Case]:
    """sst2 and agnews, each under the data set's own instruction, a hundred-token one, or after four exemplars."""
    for task, labels in TASKS.items():
        examples = [json.loads(line) for line in (DATA / task / f"{split}.jsonl").open(encoding="utf-8")]
        if len(examples) < rows * parts:
            raise SystemExit(f"{task} has {len(examples)} {split} rows; {rows} rows x {parts} parts are too many")
        for length in lengths:
            start = LONG[task] if length == "long" else examples[0]["instruction"]
            if length == "exemplars":
                shown = [f"Input: {row['input']}\nOutput: {row['output']}" for row in examples[-EXEMPLARS:]]
                start = "\n\n".join([start, *shown])
            prompts = [f"{start}\n\nInput: {row['input']}\nOutput:" for row in examples[: rows * parts]]
            yield Case(f"{task} {length}", labels, [prompts[at : at + rows] for at in range(0, len(prompts), rows)])


class Naive:
    """One forward pass in fp32 per prompt and label, as a first version would."""

    def __init__(self) -> None:
        import torch

        from prewrite.lm.embedded import resolve_model
        from prewrite.lm.loading import load_causal_lm, load_tokenizer

        folder = resolve_model("embedded")
        self.tokenizer, self.model = load_tokenizer(folder), load_causal_lm(folder, torch.float32).eval()

    def label_logprobs(self, prompts: Sequence[str], labels: Sequence[str]) -> Any:
        import torch

        tokenizer, model = self.tokenizer, self.model
        scores = np.empty((len(prompts), len(labels)))
        with torch.inference_mode():
            for row, prompt in enumerate(prompts):
                start = len(tokenizer(prompt)["input_ids"])
                for column, label in enumerate(labels):
                    ids = torch.tensor([tokenizer(f"{prompt} {label}")["input_ids"]])
                    logprobs = model(ids).logits[0, :-1].log_softmax(-1)
                    scores[row, column] = logprobs.gather(1, ids[0, 1:, None])[start - 1 :].sum().item()
        return scores


class Floor:
    """Only the matrix products that shared-prefix scoring cannot avoid, on random numbers of the model's shapes."""

    def __init__(self, inner: Any) -> None:
        from prewrite.lm.embedded import resolve_model
        from prewrite.lm.loading import load_causal_lm

        self.inner = inner
        self.model = load_causal_lm(resolve_model("embedded"), inner.dtype)

    def label_logprobs(self, prompts: Sequence[str], labels: Sequence[str]) -> Any:
        import torch

        from prewrite.lm.prefix import batches, group_by_prefix, waves

        model, dtype, most = self.model, self.inner.dtype, self.inner.tokens_per_batch
        layers = [m.weight for m in model.base_model.modules() if isinstance(m, torch.nn.Linear)]
        head = model.lm_head.weight
        ids = self.inner.tokenizer(list(prompts))["input_ids"]
        groups = group_by_prefix(ids, [1] * len(ids), worth=WORTH)
        own = {row: len(ids[row]) - group.shared for group in groups for row in group.rows}
        with torch.inference_mode():
            for wave in waves(groups, most, len(groups)):
                read = [sum(own[row] for part in parts for row in part) for parts in batches(wave, own, most)]
                for tokens in [sum(group.shared for group in wave), *read]:
                    inputs = {width: torch.randn(tokens, width, dtype=dtype) for width in {w.shape[1] for w in layers}}
                    for weight in layers:
                        torch.nn.functional.linear(inputs[weight.shape[1]], weight)
            torch.nn.functional.linear(torch.randn(len(ids), head.shape[1], dtype=dtype), head)
        return np.zeros((len(prompts), len(labels)))


def engines(server: str | None, concurrency: Sequence[int]) -> dict[str, Callable[[], Any]]:
    """All that can run here, by name; opened one after the other."""
    from prewrite.task_models.hf import HFTaskModel
    from prewrite.task_models.registry import open_task_model

    found: dict[str, Callable[[], Any]] = {
        "naive fp32": Naive,
        "hf fp32": lambda: HFTaskModel("embedded", dtype="float32", share_prefix=False),
        "hf fp32 shared prefix": lambda: HFTaskModel("embedded", dtype="float32"),
        "hf bf16": lambda: HFTaskModel("embedded", dtype="bfloat16", share_prefix=False),
        "hf bf16 shared prefix": lambda: HFTaskModel("embedded", dtype="bfloat16"),
        FLOOR: lambda: Floor(HFTaskModel("embedded")),
    }
    if importlib.util.find_spec("openvino_genai"):
        found["openvino F16"] = lambda: open_task_model("openvino:embedded")
    for limit in concurrency if server else ():
        options = {"concurrency": limit}
        found[f"http x{limit}"] = lambda options=options: open_task_model(str(server), options=options)
    return found


def chosen(args: argparse.Namespace, found: dict[str, Any], always: Sequence[str]) -> dict[str, Any]:
    """Those of `found` that `--engines` asks for, and those needed always."""
    if unknown := [name for name in args.engines or () if name not in found]:
        raise SystemExit(f"error: engine {unknown[0]!r} is not there; there are {', '.join(found)}")
    return {name: make for name, make in found.items() if not args.engines or name in (*args.engines, *always)}


def speed(args: argparse.Namespace) -> None:
    """Examples per second: a row per engine, best / median of the rounds."""
    import torch

    from prewrite.lm.loading import pick_dtype

    found = chosen(args, engines(args.server, args.concurrency), ("naive fp32", FLOOR))
    if pick_dtype() == torch.float32:
        print("no bf16 instructions here: bf16 is left out, and the floor is that of fp32\n")
        found = {name: make for name, make in found.items() if "bf16" not in name}
    opened = {name: make() for name, make in found.items()}
    print(f"examples/s, best / median of {args.rounds} rounds of {args.rows} rows; naive on a quarter of them\n")
    http = [name for name in opened if name.startswith("http")]
    sets = 1 + len(
        http
    )  # in each round, the engines in this process share rows; a server, which remembers, gets new ones
    for case in cases("train", args.rows, args.rounds * sets, ("short", "long", "exemplars")):
        times: dict[str, list[float]] = {name: [] for name in opened}
        own: dict[str, list[float]] = {name: [] for name in opened}
        for first in range(0, args.rounds * sets, sets):
            for name, model in opened.items():
                prompts = case.parts[first + (1 + http.index(name) if name in http else 0)]
                asked = prompts[: len(prompts) // 4] if name == "naive fp32" else prompts
                start, cpu = time.perf_counter(), time.process_time()
                model.label_logprobs(asked, case.labels)
                times[name].append((time.perf_counter() - start) / len(asked))
                own[name].append((time.process_time() - cpu) / len(asked))
        naive = min(times["naive fp32"])
        print(f"| {case.name} | best | median | x naive | of floor |\n|---|---|---|---|---|")
        for name, seconds in times.items():
            best, median = min(seconds), statistics.median(seconds)
            share = f"{min(times[FLOOR]) / best:.0%}"
            note = (
                f" (client CPU {min(own[name]) * 1e3:.1f} ms, {min(own[name]) / best:.1%})" if "http" in name else ""
            )
            print(f"| {name}{note} | {1 / best:.1f} | {1 / median:.1f} | {naive / best:.1f} | {share} |", flush=True)
        print()


def agreement(args: argparse.Namespace) -> None:
    """Same label as hf fp32: share of rows, of rows with a margin of at least 0.25, and the largest difference."""
    available = engines(args.server, [8])
    names = [name for name in chosen(args, available, ()) if name not in ("naive fp32", "hf fp32", FLOOR)]
    reference = available["hf fp32"]()
    cases_ = list(cases("test", args.agreement, 1, ("short",)))
    truth = {case.name: reference.label_logprobs(case.parts[0], case.labels) for case in cases_}
    print("| engine | task | agree | agree, margin >= 0.25 | max difference | alone = in batch |")
    print("|---|---|---|---|---|---|")
    for name in names:
        model = available[name]()
        for case in cases_:
            prompts, right = case.parts[0], truth[case.name]
            scores = model.label_logprobs(prompts, case.labels)
            same = scores.argmax(1) == right.argmax(1)
            ordered = np.sort(right, axis=1)
            clear = ordered[:, -1] - ordered[:, -2] >= 0.25
            alone = np.concatenate([model.label_logprobs([prompt], case.labels) for prompt in prompts[:32]])
            steady = (alone.argmax(1) == scores[:32].argmax(1)).mean()
            apart = np.abs(scores - right).max()
            with_margin = f"{same[clear].mean():.1%} of {clear.sum()}"
            company = f"{steady:.0%} (max {np.abs(alone - scores[:32]).max():.2f})"
            print(
                f"| {name} | {case.name} | {same.mean():.1%} | {with_margin} | {apart:.2f} | {company} |", flush=True
            )


def cache(entries: int) -> None:
    """Time to look up 1,000 of `entries`, and the size on disk."""
    from prewrite.task_models.cache import AnswerCache

    source = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        answers = AnswerCache(Path(folder) / "answers.sqlite")
        keys = [source.bytes(32) for _ in range(entries)]
        start = time.perf_counter()
        for first in range(0, entries, 10_000):
            answers.put("model", ((key, (-0.123456789, -1.123456789)) for key in keys[first : first + 10_000]))
        print(f"{entries:,} entries written in {time.perf_counter() - start:.0f} s")
        answers.close()
        times, cpu = [], []
        for _ in range(20):
            wanted = [keys[index] for index in source.choice(entries, 1000, replace=False)]
            start, own = time.perf_counter(), time.process_time()
            if len(answers.get(wanted)) != 1000:
                raise RuntimeError("an entry was not found")
            cpu.append((time.process_time() - own) * 1e3)
            times.append((time.perf_counter() - start) * 1e3)
        median, own_median = statistics.median(times), statistics.median(cpu)
        print(f"1,000 looked up: median {median:.1f} ms, first {times[0]:.1f}, worst {max(times):.1f}")
        print(f"of that CPU: {own_median:.1f} ms, which a busy machine does not distort")
        start = time.perf_counter()
        info = answers.info()
        print(f"on disk: {info.bytes / 1e6:.0f} MB; info() took {(time.perf_counter() - start) * 1e3:.0f} ms")
        answers.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64, help="rows per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--server", help="a task model behind HTTP, such as openai:smollm2@http://127.0.0.1:8124/v1")
    parser.add_argument(
        "--concurrency", type=int, nargs="+", default=[1, 8, 32], help="requests open, of up to 8 prompts"
    )
    parser.add_argument("--engines", nargs="+", metavar="NAME", help="only these, e.g. 'hf bf16' 'http x8'")
    parser.add_argument("--agreement", type=int, metavar="ROWS", help="compare answers on so many rows instead")
    parser.add_argument("--cache", type=int, metavar="ENTRIES", help="measure the answer cache instead")
    args = parser.parse_args()
    if args.cache:
        cache(args.cache)
    elif args.agreement:
        agreement(args)
    else:
        speed(args)


if __name__ == "__main__":
    main()
