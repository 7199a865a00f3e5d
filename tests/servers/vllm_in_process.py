"""Asks `VLLMTaskModel` in this process, on vLLM for CPUs; for tests/task_models/test_vllm_server.py.

PYTHONPATH=src .venv-vllm/bin/python tests/servers/vllm_in_process.py MODEL_FOLDER QUESTIONS.json ANSWERS.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from prewrite.errors import NoAnswerError
from prewrite.task_models.vllm import VLLMTaskModel


def main() -> None:
    """Answer {"prompts", "labels", "targets"} by every method. vLLM writes to standard output, so answers do not."""
    folder, questions, found = sys.argv[1:]
    asked: dict[str, Any] = json.loads(Path(questions).read_text(encoding="utf-8"))
    task_model = VLLMTaskModel(folder, dtype="float32", max_new_tokens=8, max_model_len=1024)
    prompts = asked["prompts"]
    answers = {
        "label_logprobs": [task_model.label_logprobs(prompts, labels).tolist() for labels in asked["labels"]],
        "target_logprobs": task_model.target_logprobs(prompts, asked["targets"]),
        "constrained": task_model.constrained(prompts, asked["labels"][0]),
        "generate": task_model.generate(prompts),
        "longest": len(task_model.generate(["a" + " a" * (1024 - 8 - 1)])),  # as many tokens as fit beside the answer
    }
    try:
        task_model.generate([*prompts, "a" + " a" * (1024 - 8)])
    except NoAnswerError as error:
        answers["too long"] = str(error)
    Path(found).write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main()
