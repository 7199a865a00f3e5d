"""`prewrite warm-start`: a short supervised phase on the project's own pairs, kept as an adapter."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from prewrite.cli.options import add_options, build_config
from prewrite.cli.requirements import require_training
from prewrite.errors import RunFolderError
from prewrite.rewriter.meta_prompts import load_meta_prompt
from prewrite.run.checks import check_model
from prewrite.run.config import WarmStartConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All settings of `WarmStartConfig`."""
    parser.epilog = "Example: prewrite warm-start --base-model embedded --output-dir runs/starter"
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_options(parser, WarmStartConfig)


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Train and save."""
    config = build_config(WarmStartConfig, namespace)
    folder = Path(str(config.output_dir))
    if folder.exists():
        raise RunFolderError(f"output_dir {config.output_dir!r} exists; choose another folder")
    require_training()
    load_meta_prompt(config.meta_family)  # what is not there is told before the imports, which take seconds
    check_model("base_model", config.base_model)
    from prewrite.train.warm_start import make_adapter

    losses = make_adapter(
        config.base_model, folder, meta_family=config.meta_family, epochs=config.epochs, seed=config.seed
    )
    if namespace.json:
        print(json.dumps({"adapter": str(folder), "losses": losses}))
        return 0
    before, after = losses["held_out/before"], losses["held_out/after"]
    print(f"Loss on held-out instructions: {before:.2f} -> {after:.2f} nats per token. Adapter: {folder}")
    print(f"Use it with: prewrite train --base-model {config.base_model} --warm-start {folder} ...")
    return 0
