"""The table of docs/task_models.md, from what `prewrite doctor --json` told of real servers.

prewrite doctor --json openai:smol@http://127.0.0.1:8126/v1 > llama.json
python tests/servers/table.py "llama-cpp-python 0.3.36=llama.json" "vLLM=vllm.json"
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

CAPABILITIES = ("generate", "constrained", "label_logprobs", "target_logprobs")


def line(server: str, told: dict[str, Any]) -> str:
    """One server: the day, and for each capability yes, or why not."""
    checks = {check["capability"]: check for check in told["task_models"][0]["checks"]}
    cells = [server, told["day"], *(_cell(checks[name]) for name in CAPABILITIES)]
    known = not any(note.startswith("the server tells nothing") for note in told["task_models"][0]["notes"])
    return f"| {' | '.join([*cells, 'yes' if known else 'no'])} |"


def _cell(check: dict[str, Any]) -> str:
    if check["ok"]:
        return "yes"
    return str(check["detail"]).removeprefix("not offered: ").partition("; label_scores")[0]


def main() -> None:
    print(f"| server | day | {' | '.join(f'`{name}`' for name in CAPABILITIES)} | a swapped model is noticed |")
    print("|---|---|" + "---|" * (len(CAPABILITIES) + 1))
    for argument in sys.argv[1:]:
        server, _, file = argument.rpartition("=")
        print(line(server, json.loads(Path(file).read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
