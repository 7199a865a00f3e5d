"""A task model in this process, on transformers: scores labels, scores given texts, or writes greedily.

Prompts that share a beginning become a group: the shared tokens go through the model once, and their keys and values
are used by all rows of the group. The grouping is over token ids, never over strings, since a tokenizer may merge
across the seam.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from prewrite.lm.embedded import HUB_ID, is_embedded, resolve_model
from prewrite.lm.identity import folder_digest
from prewrite.lm.loading import load_causal_lm, load_tokenizer, pick_device, pick_dtype
from prewrite.lm.prefix import PrefixGroup, batches, group_by_prefix, waves
from prewrite.lm.sampling import Start, write_greedily
from prewrite.lm.tokens import decode, end_ids
from prewrite.lm.trunk import Cache, context_of, open_trunk
from prewrite.task_models.base import Method
from prewrite.task_models.in_process import InProcessTaskModel, check_chat, check_max_new_tokens
from prewrite.types import Prompt

WORTH = 64
"""Tokens that sharing a beginning has to save: reading it apart costs about as much."""
VOCABULARY_ROWS = 64
"""States whose log-probabilities over the vocabulary are held at once: 64 x 49,152 x 4 bytes = 13 MB."""


class Prefilled(NamedTuple):
    """Prompts that the model has read, in one batch."""

    rows: list[int]  # their places in the call
    positions: torch.Tensor  # (B,), of each row's next token
    mask: torch.Tensor  # (B, longest), of each row's own tokens, 0 for the padding at their left
    cache: Cache
    hidden: torch.Tensor  # (B, kept, D), the last states


class HFTaskModel(InProcessTaskModel):
    """See the module docstring. One instance holds one model, in eval mode and without gradients.

    Args:
        model: a folder, a hub id, or `embedded`.
        dtype: `auto` (bf16 where the device has it), `float32`, `bfloat16`, `float16`.
        chat: put each prompt in the model's chat template, thinking off where it has the switch; a text is one user
            message.
        max_new_tokens: limit of `generate`, at least 1.
        tokens_per_batch: upper limit of rows x padded length of one forward pass; bounds memory.
        share_prefix: compute the shared beginning of a group once; off only to measure what it saves.
    """

    methods: frozenset[Method] = frozenset({"generate", "label_logprobs", "target_logprobs"})

    def __init__(
        self,
        model: str = "embedded",
        *,
        dtype: str = "auto",
        chat: bool = False,
        max_new_tokens: int = 64,
        tokens_per_batch: int = 2048,
        share_prefix: bool = True,
    ):
        check_max_new_tokens(max_new_tokens)
        folder = self.source = resolve_model(model)
        self.device = pick_device()
        self.dtype = pick_dtype(dtype, self.device)
        self.tokenizer = load_tokenizer(folder)
        check_chat(chat, self.tokenizer, model)
        weights = load_causal_lm(folder, self.dtype).to(self.device).eval().requires_grad_(False)
        self.end_ids = end_ids(weights, self.tokenizer)
        self.context = context_of(weights.config)
        self.trunk = open_trunk(weights, owned=True)
        self.chat = chat
        self.max_new_tokens = max_new_tokens
        self.tokens_per_batch = tokens_per_batch
        self.share_prefix = share_prefix
        shown = HUB_ID.split("/")[1] if is_embedded(model) else str(model)
        self.name = f"hf:{shown}"
        settings = (str(self.dtype).removeprefix("torch."), f"{max_new_tokens=}")
        self.identity = f"{self.name}|{folder_digest(Path(folder))}|{self.settings_identity(*settings)}"

    # ---- the contract ---------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def label_logprobs(self, prompts: Sequence[Prompt], labels: Sequence[str]) -> NDArray[np.float64]:
        """Natural-log probability of each label, summed over its tokens; (len(prompts), len(labels))."""
        label_ids = [self.answer_ids(label) for label in labels]
        longest = max(map(len, label_ids))
        longer = [column for column, ids in enumerate(label_ids) if len(ids) > 1]
        room = sum(len(label_ids[column]) - 1 for column in longer) if self.trunk.branches else longest - 1
        token_ids = self.fitting_ids(prompts, [longest] * len(prompts))
        scores = np.empty((len(prompts), len(labels)))
        for batch in self._prefilled(token_ids, room=room):
            logprobs = self._next_logprobs(batch.hidden[:, -1])  # (B, V)
            total = logprobs[:, [ids[0] for ids in label_ids]].double()
            for columns in self._together(longer, label_ids, rows=len(batch.rows)):
                total[:, columns] += self._continue(batch, [label_ids[column] for column in columns])
            scores[batch.rows] = total.cpu().numpy()
        return scores

    @torch.inference_mode()
    def target_logprobs(self, prompts: Sequence[Prompt], targets: Sequence[str]) -> list[float]:
        """Mean natural-log probability per token of each target after its own prompt; always at most 0."""
        target_ids = [self.answer_ids(target) for target in targets]
        token_ids = self.fitting_ids(prompts, [len(ids) for ids in target_ids])
        both = [prompt + target for prompt, target in zip(token_ids, target_ids, strict=True)]
        means = np.empty(len(prompts))
        # Score every target token in the same pass as its prompt; the last token needs no state after it.
        for batch in self._prefilled([ids[:-1] for ids in both], keep=[len(t) for t in target_ids]):
            for row, states in zip(batch.rows, batch.hidden, strict=True):
                ids = torch.tensor(target_ids[row], device=self.device)
                logprobs = self._next_logprobs(states[-len(ids) :])  # (target tokens, V)
                means[row] = logprobs.gather(1, ids[:, None]).double().mean().item()
        return [float(mean) for mean in means]

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt]) -> list[str]:
        """Greedy text, ended by an end-of-sequence token or after `max_new_tokens`; special tokens left out."""
        outputs = [""] * len(prompts)
        token_ids = self.fitting_ids(prompts, [self.max_new_tokens] * len(prompts))
        for batch in self._prefilled(token_ids, room=self.max_new_tokens):
            written = write_greedily(
                self.trunk,
                Start(batch.hidden[:, -1], batch.cache, batch.positions, batch.mask),
                max_new_tokens=self.max_new_tokens,
                end_ids=self.end_ids,
                pad_token_id=self.tokenizer.pad_token_id,
            )
            for row, text in zip(batch.rows, decode(self.tokenizer, written, self.end_ids), strict=True):
                outputs[row] = text
        return outputs

    # ---- the model ------------------------------------------------------------------------------------------------

    def _prefilled(
        self, token_ids: list[list[int]], *, keep: Sequence[int] | None = None, room: int = 0
    ) -> Iterator[Prefilled]:
        """Run all prompts, batch by batch.

        Rows are left-padded after the shared prefix, so that the last column is every row's last token. `keep` says
        how many last states each row needs (one by default): no prefix may be shared that swallows them, and `hidden`
        holds as many as the neediest row's. The cache has room for `room` more tokens.
        """
        keep = keep or [1] * len(token_ids)
        # A window counts columns: beyond it, padding between a shared prefix and its rows would push tokens out.
        fits = max(map(len, token_ids), default=0) + room <= self.trunk.window
        groups = [PrefixGroup(list(range(len(token_ids))), 0)]
        if self.share_prefix and fits:
            groups = group_by_prefix(token_ids, keep, worth=WORTH)
        shared = {row: group.shared for group in groups for row in group.rows}
        own = [len(ids) - shared[row] for row, ids in enumerate(token_ids)]
        for wave in waves(groups, self.tokens_per_batch, self.trunk.stems):
            stems = self._read([token_ids[group.rows[0]][: group.shared] for group in wave])
            for parts in batches(wave, own, self.tokens_per_batch):
                rows = list(chain.from_iterable(parts))
                width = max(own[row] for row in rows)
                block = [
                    [self.tokenizer.pad_token_id] * (width - own[row]) + token_ids[row][shared[row] :] for row in rows
                ]
                before = torch.tensor([shared[row] for row in rows], device=self.device)
                lengths = torch.tensor([own[row] for row in rows], device=self.device)
                columns = torch.arange(width, device=self.device)
                positions = before[:, None] + (columns - (width - lengths[:, None])).clamp(min=0)
                mask = columns >= width - lengths[:, None]
                if stems is None:
                    cache = self.trunk.new_cache(len(rows), width + room)
                else:
                    cache = stems.branch([g.shared for g in wave], [len(part) for part in parts], room=width + room)
                ids = torch.tensor(block, device=self.device)
                hidden = self.trunk(ids, positions, cache, mask, keep=max(keep[row] for row in rows))
                yield Prefilled(rows, before + lengths, mask, cache, hidden)

    def _read(self, beginnings: Sequence[list[int]]) -> Cache | None:
        """The cache of what groups begin with, padded at the right; None where they begin with nothing."""
        width = max(map(len, beginnings))
        if not width:
            return None
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids in beginnings], device=self.device)
        columns = torch.arange(width, device=self.device).expand(len(ids), -1)
        mask = columns < torch.tensor([len(ids) for ids in beginnings], device=self.device)[:, None]
        cache = self.trunk.new_cache(len(ids), width)
        self.trunk(ids, columns, cache, mask, keep=0)
        return cache

    def _together(self, columns: Sequence[int], label_ids: Sequence[list[int]], *, rows: int) -> Iterator[list[int]]:
        """The labels whose tokens after the first go through the model in one pass, group by group."""
        group: list[int] = []
        tokens = 0
        for column in columns:
            more = rows * (len(label_ids[column]) - 1)
            if group and (not self.trunk.branches or tokens + more > self.tokens_per_batch):
                yield group
                group, tokens = [], 0
            group.append(column)
            tokens += more
        if group:
            yield group

    def _continue(self, batch: Prefilled, labels: Sequence[list[int]]) -> torch.Tensor:
        """Log-probability of each label's tokens after its first, given the cached prompts; (B, labels).

        The labels stand side by side, and none sees another. The cache stays.
        """
        rows, tails = len(batch.rows), [ids[:-1] for ids in labels]
        tokens = torch.tensor(list(chain.from_iterable(tails)), device=self.device).expand(rows, -1)
        own = torch.block_diag(*(tokens.new_ones(len(tail), len(tail)).tril() for tail in tails)).bool()
        if len(labels) == 1:
            mask = torch.cat([batch.mask, batch.mask.new_ones(tokens.shape)], dim=1)
        else:
            seen = batch.mask[:, None].expand(-1, len(own), -1)
            mask = torch.cat([seen, own.expand(rows, -1, -1)], dim=2)
        steps = torch.cat([torch.arange(len(tail), device=self.device) for tail in tails])
        before = batch.cache.length
        hidden = self.trunk(tokens, batch.positions[:, None] + steps, batch.cache, mask)
        batch.cache.crop(before)
        following = torch.tensor([token for ids in labels for token in ids[1:]], device=self.device)
        chosen = self._logprobs_of(hidden.flatten(0, 1), following.repeat(rows)).view(rows, -1)
        return torch.stack([part.sum(1) for part in chosen.split([len(tail) for tail in tails], dim=1)], dim=1)

    def _logprobs_of(self, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Log-probability of one token after each state, in double precision; (N,). A few states at a time."""
        parts = [
            self._next_logprobs(some).gather(1, those[:, None]).squeeze(1).double()
            for some, those in zip(states.split(VOCABULARY_ROWS), tokens.split(VOCABULARY_ROWS), strict=True)
        ]
        return torch.cat(parts)

    def _next_logprobs(self, states: torch.Tensor) -> torch.Tensor:
        return self.trunk.lm_head(states).float().log_softmax(-1)
