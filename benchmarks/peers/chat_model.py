"""The model behind the endpoint: chat messages in, text out, greedily or sampled, many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from benchmarks.peers.speaker import Messages, Written

from prewrite.lm.sampling import Start, write
from prewrite.lm.tokens import decode
from prewrite.task_models.hf import HFTaskModel


class ChatModel(HFTaskModel):
    """The embedded model, or another one on this machine, in its own chat template.

    Prompts are rendered first, so that messages of the system, which `Conversation` does not hold, get through.
    """

    def render(self, messages: Messages) -> str:
        """See `Speaker`."""
        given = [{"role": message["role"], "content": message["content"]} for message in messages]
        return str(self.tokenizer.apply_chat_template(given, tokenize=False, add_generation_prompt=True))

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """See `Speaker`."""
        return self.prompt_tokens(prompts)

    def answers(
        self, prompts: Sequence[str], *, limit: int, temperature: float, seeds: Sequence[int]
    ) -> list[Written]:
        """See `Speaker`."""
        if temperature > 0:
            return self._sampled(prompts, limit, temperature, seeds)
        self.max_new_tokens = limit
        texts = self.generate(prompts)
        return [Written(text, len(self.tokenizer(text, add_special_tokens=False)["input_ids"])) for text in texts]

    @torch.inference_mode()
    def _sampled(self, prompts: Sequence[str], limit: int, temperature: float, seeds: Sequence[int]) -> list[Written]:
        """Each answer depends on its own seed alone, so that runs repeat whatever came in the same batch."""
        draws = torch.tensor(np.stack([np.random.default_rng(seed).random(limit) for seed in seeds]))
        found = [Written("", 0)] * len(prompts)
        for batch in self._prefilled(self.fitting_ids(prompts, [limit] * len(prompts)), room=limit):
            mine = draws[batch.rows].to(self.device, torch.float32)

            def choose(
                step: int, rows: torch.Tensor, running: torch.Tensor, logits: torch.Tensor, mine: Any = mine
            ) -> torch.Tensor:
                cumulative = (logits.float() / temperature).softmax(-1).cumsum(-1)
                aimed = mine[rows, step, None] * cumulative[:, -1:]
                return torch.searchsorted(cumulative, aimed).squeeze(1).clamp(max=logits.shape[-1] - 1)

            tokens, written = write(
                self.trunk,
                Start(batch.hidden[:, -1], batch.cache, batch.positions, batch.mask),
                choose,
                max_new_tokens=limit,
                end_ids=self.end_ids,
                pad_token_id=self.tokenizer.pad_token_id,
            )
            rows = [ids[kept].tolist() for ids, kept in zip(tokens, written, strict=True)]
            for row, ids, text in zip(batch.rows, rows, decode(self.tokenizer, rows, self.end_ids), strict=True):
                found[row] = Written(text, len(ids))
        return found
