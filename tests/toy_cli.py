"""A whole training run in a few seconds: its rows and its flags. Fixtures `toy` and `run` are in conftest.py.

The wording alone is chosen, as in the paper; `whole_flags` ends in a search of the whole prompt.
"""

ROWS = [
    {"instruction": "solve the task", "input": f"{word} {n}", "output": word, "task": "classification"}
    for n in range(20)
    for word in ("step", "now")
]


def train_flags(toy, run, *more, data=None):
    return whole_flags(toy, run, "--parts", "instruction", *more, data=data)


def whole_flags(toy, run, *more, data=None):
    return [
        "train", "--dataset", str(data or toy / "rows.jsonl"), "--output_dir", str(run), "--base_model",
        str(toy / "model"), "--task_backend", "hf", "--task_model", str(toy / "model"), "--max_steps", "2",
        "--learning_rate", "5e-6", "--kl_coef", "0.02", "--rewrites-per-step", "4", "--examples_per_rewrite", "3",
        "--response_length", "6", "--dev_examples", "6", "--no_cache", "--fidelity_model", str(toy / "model"), *more,
    ]  # fmt: skip
