"""`prewrite serve RUN`: the rewriter as an endpoint like OpenAI's, and a page that searches a prompt."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prewrite.cli.options import add_options, build_configs
from prewrite.cli.requirements import require
from prewrite.cli.screen import say_where_data_go
from prewrite.errors import ConfigError, MissingDependencyError
from prewrite.run.config import SearchConfig
from prewrite.run_folder import RunFolder
from prewrite.task_models.registry import names_server

CALLS = 600
"""Enough for a few wordings too, which get a fifth of them."""
SHOWN = ["task_model", "task_model_options", "search_calls", "num_candidates", "decoding", "metric", "guards",
         "fidelity_model", "min_fidelity", "cache", "max_task_calls", "max_minutes", "seed"]  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The rewriter, the task models, the port."""
    parser.epilog = (
        "Example: prewrite serve runs/first --task-model ollama:gemma3:4b\n"
        "Base URL for clients: http://127.0.0.1:8766/v1, any key. Only this machine can reach it."
    )
    parser.add_argument("rewriter_by_position", metavar="RUN", help="a run folder with a rewriter, or embedded")
    parser.add_argument("--port", type=int, default=8766, help="port on this machine (default: 8766); 0: a free one")
    add_options(parser, SearchConfig, only=SHOWN, defaults={"search_calls": CALLS}, several=True)


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Serve until Ctrl-C."""
    name = namespace.rewriter_by_position
    if name == "none":
        raise ConfigError("RUN is 'none'; give a run folder with a rewriter, or embedded")
    given: dict[str, Any] = {"rewriter": name, "search_calls": CALLS}
    if not hasattr(namespace, "task_model"):
        given |= task_model_of(name)
    configs = build_configs(SearchConfig, namespace, **given)
    if not names_server(name):
        require("torch", "transformers", "peft")
    for config in configs:
        say_where_data_go(config.task_model, rewriter=name if config is configs[0] else "")
    try:
        from prewrite.serve.app import listen, make_server
    except ImportError as error:
        raise MissingDependencyError(f"{error.name} is not installed; `pip install 'prewrite[serve]'`") from None
    from prewrite.report.loopback import HOST
    from prewrite.run.build import open_evaluator, open_reward
    from prewrite.run.checks import check_models
    from prewrite.run.progress import phase_line
    from prewrite.run.search import open_proposer
    from prewrite.serve.search import Searches
    from prewrite.serve.writer import Writer
    from prewrite.task_models.token_counts import estimated_tokens

    for config in configs:
        check_models(config)
    with listen(namespace.port) as place:
        with phase_line("loading"):
            proposer = open_proposer(name)
            evaluators = {config.task_model: open_evaluator(config) for config in configs}
        assert proposer is not None  # `none` was refused
        tokenizer = getattr(proposer, "tokenizer", None)  # a model on a server has none here
        writer = Writer(
            Path(name).name if os.path.isdir(name) else name,
            proposer,
            estimated_tokens if tokenizer is None else lambda text: len(tokenizer(text)["input_ids"]),
        )
        first = configs[0]
        searches = Searches(
            writer,
            evaluators,
            lambda evaluator, rows: open_reward(first, evaluator, rows),
            calls=first.search_calls,
            num_candidates=first.num_candidates,
            seed=first.seed,
        )
        address = f"http://{HOST}:{place.getsockname()[1]}"
        print(f"{address}/  (page; clients: {address}/v1, model {writer.name}; Ctrl-C stops)", flush=True)
        try:
            make_server(searches).run(sockets=[place])
        except KeyboardInterrupt:
            print()
    return 0


def task_model_of(name: str) -> dict[str, Any]:
    """The task model of the run whose folder `name` is, as settings; none where it is no run's folder."""
    file = RunFolder(Path(name)).config
    if not os.path.isfile(file):
        return {}
    settings = RunFolder.read_json(file, {"config": {"task_model": str}})["config"]
    return {key: settings[key] for key in ("task_model", "task_model_options") if key in settings}
