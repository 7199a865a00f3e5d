"""`prewrite warm-start`: a short supervised phase on the project's own pairs, kept as an adapter."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from prewrite.cli.requirements import require_training
from prewrite.errors import RunFolderError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, place, length."""
    parser.epilog = "Example: prewrite warm-start --base-model embedded --output-dir runs/starter"
    parser.add_argument("--base_model", "--base-model", default="embedded", help="folder, hub id or embedded")
    parser.add_argument("--output_dir", "--output-dir", required=True, help="the adapter's folder; must not exist")
    parser.add_argument(
        "--meta_family", "--meta-family", default="generic", help="the meta prompt it will be used with"
    )
    parser.add_argument("--epochs", type=int, default=3, help="passes over the pairs")
    parser.add_argument("--seed", type=int, default=0, help="seed of order and initial weights")


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Train and save."""
    require_training()
    folder = Path(namespace.output_dir)
    if folder.exists():
        raise RunFolderError(f"output_dir {namespace.output_dir!r} exists; choose another folder")
    from prewrite.train.warm_start import make_adapter

    losses = make_adapter(
        namespace.base_model,
        folder,
        meta_family=namespace.meta_family,
        epochs=namespace.epochs,
        seed=namespace.seed,
    )
    before, after = losses["held_out/before"], losses["held_out/after"]
    print(f"Loss on held-out instructions: {before:.2f} -> {after:.2f} nats per token. Adapter: {folder}")
    print(f"Use it with: prewrite train --base-model {namespace.base_model} --warm-start {folder} ...")
    return 0
