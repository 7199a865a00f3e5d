"""A task model in this process on vLLM, for a GPU. On a CPU, or for several processes: its server, with `openai:`.

Labels of one token are scored by `logprob_token_ids` in one step where this vLLM has it; others, and given texts, by
the log-probabilities of a prompt that ends in them. A choice by grammar is offered as `constrained`: another scorer.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prewrite.errors import ConfigError, MissingDependencyError, TaskModelError
from prewrite.lm.embedded import resolve_model
from prewrite.lm.identity import folder_digest
from prewrite.lm.tokens import continuation
from prewrite.task_models.base import Method
from prewrite.task_models.in_process import InProcessTaskModel, check_chat, check_max_new_tokens
from prewrite.task_models.labels import label_tokens
from prewrite.types import Prompt

ONE_MORE = 1  # token that vLLM writes behind what it scores


class VLLMTaskModel(InProcessTaskModel):
    """See the module docstring. Prefix caching is on: prompts of one rewrite share their beginning.

    Args:
        model: a folder, a hub id, or `embedded`.
        chat: put each prompt in the model's chat template; a text is one user message.
        max_new_tokens: limit of `generate`, at least 1.
        dtype: as vLLM names it.
        gpu_memory_utilization: share of the GPU's memory, in (0, 1]; leave room for a policy that trains beside it.
        max_model_len: longest prompt and answer together; None takes the model's own.
    """

    methods: frozenset[Method] = frozenset({"generate", "constrained", "label_logprobs", "target_logprobs"})

    def __init__(
        self,
        model: str,
        *,
        chat: bool = False,
        max_new_tokens: int = 64,
        dtype: str = "auto",
        gpu_memory_utilization: float = 0.5,
        max_model_len: int | None = None,
    ):
        if not 0 < gpu_memory_utilization <= 1:
            raise ConfigError(f"gpu_memory_utilization is {gpu_memory_utilization}; it must be in (0, 1]")
        check_max_new_tokens(max_new_tokens)
        try:
            import vllm
        except ImportError:
            raise MissingDependencyError("the vllm backend needs `pip install 'prewrite[vllm]'` and a GPU") from None
        folder = resolve_model(model)
        try:
            self.llm = vllm.LLM(
                model=folder,
                dtype=dtype,
                gpu_memory_utilization=gpu_memory_utilization,
                max_model_len=max_model_len,
                enable_prefix_caching=True,
                seed=0,
            )
        except (OSError, RuntimeError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise TaskModelError(
                f"vLLM could not load {model!r} ({reason}); without a GPU use hf:{model}, or "
                f"start `vllm serve {model}` and use openai:{model}@http://127.0.0.1:8000/v1"
            ) from error
        self.tokenizer = self.llm.get_tokenizer()
        check_chat(chat, self.tokenizer, model)
        self.chat, self.max_new_tokens = chat, max_new_tokens
        self.context = self.llm.llm_engine.model_config.max_model_len
        self.name = f"vllm:{model}"
        settings = (f"vllm {vllm.__version__}", dtype, f"{max_model_len=}", f"{max_new_tokens=}")
        self.identity = f"{self.name}|{folder_digest(Path(folder))}|{self.settings_identity(*settings)}"

    def generate(self, prompts: Sequence[Prompt]) -> list[str]:
        """Greedy text."""
        return self._write(prompts, greedy(max_tokens=self.max_new_tokens))

    def constrained(self, prompts: Sequence[Prompt], labels: Sequence[str]) -> list[str]:
        """One of `labels` by vLLM's structured output."""
        written = {continuation(label, chat=self.chat): label for label in labels}
        texts = self._write(prompts, choosing(list(written), label_tokens(labels)))
        if wrong := [text for text in texts if text not in written]:
            raise TaskModelError(f"{self.name} wrote {wrong[0][:80]!r}, which is not one of the labels {list(labels)}")
        return [written[text] for text in texts]

    def label_logprobs(self, prompts: Sequence[Prompt], labels: Sequence[str]) -> NDArray[np.float64]:
        """Natural-log probability of each label, summed over its tokens; (len(prompts), len(labels))."""
        label_ids = [self.answer_ids(label) for label in labels]
        token_ids = self.fitting_ids(prompts, [max(map(len, label_ids)) + ONE_MORE] * len(prompts))
        if scores_token_ids() and all(len(ids) == 1 for ids in label_ids):
            tokens = [ids[0] for ids in label_ids]
            outputs = self._run(token_ids, greedy(max_tokens=1, logprobs=len(tokens), logprob_token_ids=tokens))
            rows = [[output.outputs[0].logprobs[0][token].logprob for token in tokens] for output in outputs]
        else:
            flat = [(prompt, ids) for prompt in token_ids for ids in label_ids]
            sums = [sum(values) for values in self._score([p for p, _ in flat], [ids for _, ids in flat])]
            rows = [sums[at : at + len(labels)] for at in range(0, len(sums), len(labels))]
        return np.array(rows, dtype=np.float64).reshape(len(prompts), len(labels))

    def target_logprobs(self, prompts: Sequence[Prompt], targets: Sequence[str]) -> list[float]:
        """Mean natural-log probability per token of each target after its own prompt."""
        target_ids = [self.answer_ids(target) for target in targets]
        token_ids = self.fitting_ids(prompts, [len(ids) + ONE_MORE for ids in target_ids])
        scored = self._score(token_ids, target_ids)
        return [sum(values) / len(values) for values in scored]

    def _score(self, prompts: Sequence[list[int]], targets: Sequence[list[int]]) -> list[list[float]]:
        """Log-probabilities of each target's tokens after its prompt."""
        whole = [prompt + target for prompt, target in zip(prompts, targets, strict=True)]
        outputs = self._run(whole, greedy(max_tokens=1, prompt_logprobs=0))
        return [
            [step[token].logprob for token, step in zip(target, output.prompt_logprobs[-len(target) :], strict=True)]
            for output, target in zip(outputs, targets, strict=True)
        ]

    def _write(self, prompts: Sequence[Prompt], parameters: Any) -> list[str]:
        outputs = self._run(self.fitting_ids(prompts, [parameters.max_tokens] * len(prompts)), parameters)
        return [output.outputs[0].text for output in outputs]

    def _run(self, token_ids: Sequence[list[int]], parameters: Any) -> list[Any]:
        requests = [{"prompt_token_ids": ids} for ids in token_ids]
        return list(self.llm.generate(requests, parameters, use_tqdm=False)) if requests else []


def greedy(**fields: Any) -> Any:
    """vLLM's `SamplingParams`, greedy."""
    from vllm import SamplingParams

    return SamplingParams(temperature=0, **fields)


def choosing(texts: Sequence[str], max_tokens: int) -> Any:
    """`SamplingParams` that allow exactly one of `texts`; vLLM 0.11 renamed the setting."""
    from vllm import sampling_params

    if hasattr(sampling_params, "StructuredOutputsParams"):
        structured = sampling_params.StructuredOutputsParams(choice=list(texts))
        return greedy(max_tokens=max_tokens, structured_outputs=structured)
    pattern = "|".join(map(re.escape, texts))
    return greedy(max_tokens=max_tokens, guided_decoding=sampling_params.GuidedDecodingParams(regex=f"({pattern})"))


def scores_token_ids() -> bool:
    """Whether this vLLM can report the log-probabilities of given next tokens."""
    from vllm import SamplingParams

    fields = getattr(SamplingParams, "__struct_fields__", None) or [f.name for f in dataclasses.fields(SamplingParams)]
    return "logprob_token_ids" in fields
