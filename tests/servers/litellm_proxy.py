"""The litellm proxy in front of another OpenAI-compatible server, for `pytest -m server`.

    python tests/servers/litellm_proxy.py install .venv-litellm      (once: a minute or two, 750 MB)
    python tests/servers/litellm_proxy.py serve .venv-litellm --behind http://127.0.0.1:8126/v1 --model smol

The version is pinned: releases of litellm on PyPI have carried malware before, so look at a newer one first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from servers.real_server import RealServer, new_venv, offline, run_script

VERSION = "1.106.12"
KEY = "sk-for-tests-0123456789abcdef0123456789abcdef"
"""What clients of the proxy must send; it asks for a long one."""


def install(venv: Path) -> None:
    """A virtual environment with the proxy."""
    subprocess.run([*new_venv(venv), f"litellm[proxy]=={VERSION}"], check=True)


def server(venv: Path, port: int, behind: str, model: str, log: Path | None = None) -> RealServer:
    """The proxy, not yet started, that passes `model` on to the server at `behind`."""
    folder = Path(tempfile.mkdtemp(prefix="litellm-"))
    passed_on = {"model": f"openai/{model}", "api_base": behind, "api_key": "none"}
    config = {"model_list": [{"model_name": model, "litellm_params": passed_on}]}
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    command = [venv / "bin" / "litellm", "--config", folder / "config.yaml", "--host", "127.0.0.1", "--port", port,
               "--telemetry", "False"]  # fmt: skip
    own = {"LITELLM_MASTER_KEY": KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "HOME": str(folder)}
    return RealServer(
        list(map(str, command)), port=port, health="/health/liveliness", environment=offline() | own, log=log
    )


def _serve(args: argparse.Namespace) -> RealServer:
    print(f"its key, for OPENAI_API_KEY: {KEY}")
    return server(args.venv, args.port, args.behind, args.model)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--behind", default="http://127.0.0.1:8126/v1", help="the server that answers")
    parser.add_argument("--model", default="smol", help="the name of its model")


if __name__ == "__main__":
    run_script(__doc__, install, _serve, port=8127, add_arguments=_add_arguments)
