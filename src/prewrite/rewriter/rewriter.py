"""A trained rewriter on disk and in use: greedy rewrites, sampled rewrites, loading and saving.

A rewriter folder holds `rewriter.json` (base model, meta prompt, limits) and up to two PEFT adapters: `warm_start/`,
which is merged into the base weights first, and `adapter/`, which RL trained on top of that. A fully finetuned
rewriter holds `model/` instead.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prewrite.errors import ConfigError, RunFolderError
from prewrite.files import whole_folder
from prewrite.lm.hub import snapshot
from prewrite.lm.loading import load_adapter, save_adapter
from prewrite.lm.packing import pad_prompts
from prewrite.lm.tokens import decode, end_ids, has_chat_template
from prewrite.rewriter.meta_prompts import (
    META_PROMPTS,
    build_meta_prompt,
    extract_rewrite,
    format_rewriter_query,
    load_meta_prompt,
)
from prewrite.rewriter.policy import PolicyWithValueHead, ValueHead
from prewrite.rewriter.starter import load_base
from prewrite.run_folder import REWRITER_FILE, RunFolder
from prewrite.text import Each, Maybe, shown

SETTINGS = {
    "base_model": str,
    "meta_prompt": Maybe(str),
    "templates": Maybe(Each(str)),
    "max_new_tokens": Maybe(int),
    "temperature": Maybe(float),
}
"""Shape of `rewriter.json`."""


@dataclass(frozen=True)
class RewriterSettings:
    """What a rewriter needs besides weights."""

    base_model: str
    meta_prompt: str = META_PROMPTS["generic"]
    """The text itself, so that a rewriter works where the file that it came from is not."""
    templates: Mapping[str, str] = field(default_factory=dict)
    """Other meta prompts, by instruction: the `template` of its rows."""
    max_new_tokens: int = 64
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for text in (self.meta_prompt, *self.templates.values()):
            if "{instruction}" not in text:
                raise ConfigError(f"meta prompt {shown(text)} has no slot {{instruction}}; put it where it belongs")
        if self.max_new_tokens < 1 or not self.temperature > 0:
            raise ConfigError(
                f"max_new_tokens is {self.max_new_tokens} and temperature is {self.temperature}; max_new_tokens must "
                "be at least 1, and temperature above 0"
            )

    def query(self, instruction: str) -> str:
        """The meta prompt with `instruction` in it."""
        return build_meta_prompt(instruction, template=self.templates.get(instruction, self.meta_prompt))


def query_ids(query: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of what the rewriter completes; `query` is a meta prompt with an instruction in it."""
    text = format_rewriter_query(query, tokenizer)
    return tokenizer(text, add_special_tokens=not has_chat_template(tokenizer))["input_ids"]


class Rewriter:
    """Writes rewrites of instructions; a `choosing.candidates.Proposer`."""

    def __init__(self, policy: PolicyWithValueHead, tokenizer: PreTrainedTokenizerBase, settings: RewriterSettings):
        self.policy = policy.eval()
        self.tokenizer = tokenizer
        self.settings = settings
        self.end_ids = end_ids(policy.language_model, tokenizer)

    @classmethod
    def load(cls, folder: str | Path, *, base_model: str | None = None, dtype: str = "auto") -> Rewriter:
        """Load from a rewriter folder or a run folder. Raises `RunFolderError` if it is neither."""
        folder = RunFolder.find_rewriter(folder)
        try:
            settings = RewriterSettings(**RunFolder.read_json(folder / REWRITER_FILE, SETTINGS))
        except (TypeError, ConfigError) as error:
            raise RunFolderError(f"{folder / REWRITER_FILE} was changed or is of another version ({error})") from None
        warm_start = folder / "warm_start"
        source = str(folder / "model") if (folder / "model").is_dir() else base_model or settings.base_model
        model, tokenizer = load_base(source, dtype=dtype, warm_start=warm_start if warm_start.is_dir() else None)
        if (folder / "adapter").is_dir():
            model = load_adapter(model, folder / "adapter")
        return cls(PolicyWithValueHead(model, ValueHead.of(model)), tokenizer, settings)

    @classmethod
    def from_pretrained(
        cls, path_or_id: str | Path, *, base_model: str | None = None, dtype: str = "auto"
    ) -> Rewriter:
        """Load from a run folder, what `prewrite save` wrote, or a repository of the hub that `prewrite push` filled.

        Args:
            path_or_id: a folder, or `OWNER/NAME`.
            base_model: instead of the one that the rewriter names, such as a folder of the machine it was made on.
            dtype: of the weights; `auto` is what suits this machine.

        Raises `RunFolderError` for a folder without a rewriter, `ModelNotFoundError` for what the hub does not give.
        """
        folder = Path(path_or_id)
        if not folder.exists() and len(folder.parts) == 2 and not folder.is_absolute():
            folder = snapshot(str(path_or_id), rewriter=True)
        return cls.load(folder, base_model=base_model, dtype=dtype)

    @classmethod
    def untrained(
        cls,
        base_model: str,
        *,
        warm_start: str | Path | None = None,
        dtype: str = "auto",
        meta_family: str = "generic",
        **settings: Any,
    ) -> Rewriter:
        """The rewriter before RL: the baseline that shows what RL itself adds."""
        settings = {"meta_prompt": load_meta_prompt(meta_family), **settings}
        model, tokenizer = load_base(base_model, dtype=dtype, warm_start=warm_start)
        policy = PolicyWithValueHead(model, ValueHead.of(model))
        return cls(policy, tokenizer, RewriterSettings(base_model, **settings))

    def greedy(self, instruction: str) -> str:
        """The one rewrite of PRewrite-I (section 2.4 of the paper); empty if the completion held none."""
        return self._write(instruction, 1, temperature=0.0, generator=None)[0]

    def sample_rewrites(self, instruction: str, count: int, *, seed: int) -> list[str]:
        """`count` rewrites at the training temperature, 1 by default; the candidates of PRewrite-S."""
        generator = torch.Generator(self.policy.language_model.device).manual_seed(seed)
        return self._write(instruction, count, temperature=self.settings.temperature, generator=generator)

    def rewrite(self, instruction: str, *, num_candidates: int = 1, seed: int = 0) -> list[str]:
        """Up to `num_candidates` different rewrites, the likeliest first; fewer where samples repeat or hold none.

        Nobody has scored them: `prewrite rewrite --strategy S` or a search chooses on rows. Raises `ConfigError` for
        an empty instruction or a count below 1.
        """
        if not instruction.strip() or num_candidates < 1:
            raise ConfigError(
                f"the instruction is {shown(instruction)} and num_candidates is {num_candidates}; give a text, and a "
                "count of at least 1"
            )
        samples = self.sample_rewrites(instruction, num_candidates - 1, seed=seed) if num_candidates > 1 else []
        return list(dict.fromkeys(text for text in (self.greedy(instruction), *samples) if text.strip()))

    def _write(
        self, instruction: str, count: int, *, temperature: float, generator: torch.Generator | None
    ) -> list[str]:
        settings, tokenizer = self.settings, self.tokenizer
        ids = query_ids(settings.query(instruction), tokenizer)
        prompts = pad_prompts([ids], [0] * count, tokenizer.pad_token_id, self.policy.language_model.device)
        completions = self.policy.sample(
            prompts,
            max_new_tokens=settings.max_new_tokens,
            end_ids=self.end_ids,
            pad_token_id=tokenizer.pad_token_id,
            temperature=temperature,
            generator=generator,
        )
        return [extract_rewrite(text) for text in decode(tokenizer, completions.token_lists(), self.end_ids)]


def save_rewriter(
    folder: Path,
    policy: PreTrainedModel | PeftModel,
    settings: RewriterSettings,
    *,
    warm_start: Path | None,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Write a rewriter folder; it appears whole or not at all."""
    with whole_folder(folder) as written:
        if isinstance(policy, PeftModel):
            save_adapter(policy, written / "adapter", base_model=settings.base_model)
            if warm_start is not None:
                shutil.copytree(warm_start, written / "warm_start")
        else:
            policy.save_pretrained(written / "model")
            tokenizer.save_pretrained(written / "model")
        RunFolder.write_json(written / REWRITER_FILE, asdict(settings))
