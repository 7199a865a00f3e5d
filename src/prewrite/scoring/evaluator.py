"""The one place where a prompt meets the task.

Reward, search, dev stopping and final evaluation all call `Evaluator`, so they cannot disagree about what a prompt
looks like, how an answer is read, or what counts as right.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from prewrite.errors import CapabilityError, ConfigError, TaskModelError
from prewrite.scoring.answers import parse_answer
from prewrite.scoring.left_out import LeftOut
from prewrite.scoring.metrics import get_metric, is_own, metric_for
from prewrite.scoring.prompt import LAYOUTS, TEXT_LAYOUTS, Layout, TaskPrompt
from prewrite.scoring.templates import TASK_TEMPLATE
from prewrite.task_models.base import Method, TaskModel
from prewrite.task_models.stream import Batch, NoAnswer, TokenCounter, Value, cannot, is_answer, stream, unwrapping
from prewrite.task_models.token_counts import estimated_tokens
from prewrite.text import shown
from prewrite.types import DECODINGS, Answer, Decoding, RewriteExample

EMPTY_NATS = -10.0
"""What an empty rewrite gets where log-probabilities are counted: a confident wrong label's margin, or a gold answer
whose every token was a draw from 22,000. A finite number, so that one empty rewrite does not drown the others."""

Rewrites = Sequence[str | TaskPrompt]
"""What is scored: wordings of an instruction, which the evaluator's `around` makes whole, or whole prompts."""
Asked = tuple[TaskPrompt, RewriteExample]
"""A prompt and a row that it is asked about."""


class Evaluator:
    """Scores prompts on examples with a frozen task model.

    Args:
        task_model: any backend or wrapper.
        metric: a name in `metrics.METRICS`, `auto` (numeric match for math, token F1 for qa, label match or exact
            match for the rest), or your own function as `file.py:function`.
        decoding: how an answer is read. `likelihood`: the label with the highest log-probability. `constrained`: the
            backend's own structured output. `generate`: free text and a parser. `auto`: `likelihood` for
            classification where the backend scores labels, `constrained` where it only constrains, else `generate`.
        template: the task prompt, with the slots `{instruction}` and `{input}`, or the name of one in
            `templates.TASK_TEMPLATES`.
        around: the other parts of the prompt that a bare instruction is scored in; by default `template` alone. Its
            template is used, not `template`.
        skip_refused_rows: how many rows that the task model gives no answer to may be left out, for every prompt
            alike; one more raises `NoAnswerError`.

    These are different scorers: one evaluator reads every answer of a kind of task in one way, named by `decoding_of`.
    """

    def __init__(
        self,
        task_model: TaskModel,
        *,
        metric: str = "auto",
        decoding: str = "auto",
        template: str = TASK_TEMPLATE,
        around: TaskPrompt | None = None,
        skip_refused_rows: int = 0,
    ):
        if decoding not in ("auto", *DECODINGS):
            raise ConfigError(f"decoding {decoding!r} is unknown; choose one of auto, {', '.join(DECODINGS)}")
        if metric != "auto":
            get_metric(metric)
        self.task_model = task_model
        self.metric = metric
        self.decoding = decoding
        self.around = around or TaskPrompt("", template=template)
        self.left_out = LeftOut(skip_refused_rows)

    def prompt_of(self, prompt: str | TaskPrompt) -> TaskPrompt:
        """The whole prompt: a bare instruction among the parts of `around`."""
        return self.around.with_instruction(prompt) if isinstance(prompt, str) else prompt

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Where exemplars may stand in a prompt for this task model."""
        return LAYOUTS if "turns" in self.task_model.capabilities else TEXT_LAYOUTS

    @property
    def counts_tokens(self) -> bool:
        """Whether the task model's tokenizer is here; else `prompt_tokens` are an estimate."""
        return isinstance(self._backend, TokenCounter)

    def prompt_tokens(self, prompt: str | TaskPrompt) -> int:
        """Tokens of a prompt without its input, as the task model reads it."""
        sent, backend = self.prompt_of(prompt).sent(""), self._backend
        return backend.prompt_tokens([sent])[0] if isinstance(backend, TokenCounter) else estimated_tokens(sent)

    @property
    def _backend(self) -> TaskModel:
        *_, backend = unwrapping(self.task_model)
        return backend

    def decoding_of(self, example: RewriteExample) -> Decoding:
        """How answers to this kind of example are read. Raises `CapabilityError` if the backend cannot do it."""
        can = self.task_model.capabilities
        if self.decoding == "auto":
            if not example.choices:
                return "generate"
            if "label_logprobs" in can:
                return "likelihood"
            return "constrained" if "constrained" in can else "generate"
        decoding: Decoding = self.decoding  # type: ignore[assignment]  # checked in __init__
        if decoding != "generate" and not example.choices:
            return "generate"
        needs: Method = "label_logprobs" if decoding == "likelihood" else decoding
        if needs not in can:
            raise CapabilityError(
                f"decoding {decoding!r} needs {needs}; {cannot(self.task_model, needs)}; choose another decoding or "
                "backend"
            )
        return decoding

    def metric_of(self, example: RewriteExample) -> str:
        """The name of the metric that grades this example."""
        return metric_for(example.task) if self.metric == "auto" else self.metric

    def prompt(self, rewrite: str | TaskPrompt, example: RewriteExample) -> str:
        """What the task model is sent, as people read it."""
        return self.prompt_of(rewrite).render(example.input)

    def score(self, rewrites: Rewrites, examples: Sequence[RewriteExample]) -> NDArray[np.float64]:
        """Scores in [0, 1]; (prompt, example). The column of a row that is left out is NaN."""
        answers = self.answers(rewrites, examples)
        return np.array([[answer.score for answer in row] for row in answers]).reshape(len(rewrites), len(examples))

    def answers(self, rewrites: Rewrites, examples: Sequence[RewriteExample]) -> list[list[Answer]]:
        """The graded answers, `[prompt][example]`. An empty rewrite is the rewriter's fault: it scores 0, unasked.

        A row to which one of the prompts gets no answer is left out: it has none under the others either.
        """
        prompts = self._whole(rewrites)
        asked: dict[Asked, Answer] = {}
        jobs: dict[tuple[Decoding, tuple[str, ...]], list[Asked]] = {}
        for prompt in dict.fromkeys(prompts):
            for example in dict.fromkeys(examples):
                if example in self.left_out.reasons:
                    continue
                if prompt.empty:
                    asked[prompt, example] = Answer(prompt="", output="", prediction="", score=0.0)
                else:
                    decoding = self.decoding_of(example)
                    if prompt.label_offsets is not None and example.choices and decoding != "likelihood":
                        raise CapabilityError(
                            f"the prompt has label offsets, which need label log-probabilities, and {decoding!r} "
                            f"decoding of {self.task_model.name} has none; choose a task model that scores labels, or "
                            "drop the offsets"
                        )
                    choices = () if decoding == "generate" else example.choices or ()
                    jobs.setdefault((decoding, choices), []).append((prompt, example))
        for (decoding, choices), pairs in jobs.items():
            asked |= self._ask(decoding, choices, pairs)
        reasons = self.left_out.reasons
        none = {example: Answer("", "", "", np.nan, no_answer=reasons[example]) for example in reasons}
        return [[none.get(example) or asked[prompt, example] for example in examples] for prompt in prompts]

    def target_logprobs(self, rewrites: Rewrites, examples: Sequence[RewriteExample]) -> NDArray[np.float64]:
        """Mean log-probability per token of the first gold answer, at most 0; (rewrite, example).

        Its negative is the log-perplexity of the paper's appendix D. An empty rewrite is the rewriter's fault: nothing
        is asked, and on each example it gets `EMPTY_NATS`, or the lowest value of the others where that is lower
        still, so that none of them earns less. The column of a row that is left out is NaN. Raises `CapabilityError`
        where the backend cannot score a given text.
        """
        if "target_logprobs" not in self.task_model.capabilities:
            raise CapabilityError(
                f"perplexity rewards score given texts; {cannot(self.task_model, 'target_logprobs')}"
            )
        whole = self._whole(rewrites)
        asked = {prompt: index for index, prompt in enumerate(dict.fromkeys(p for p in whole if not p.empty))}
        pairs = [(prompt, example) for prompt in asked for example in examples]
        values = self._replies("target_logprobs", pairs, targets=tuple(example.targets[0] for _, example in pairs))
        found = np.array([values.get(pair, np.nan) for pair in pairs], dtype=np.float64)
        found = found.reshape(len(asked), len(examples))
        found[:, [example in self.left_out.reasons for example in examples]] = np.nan
        empty = found.min(axis=0, initial=EMPTY_NATS)
        rows = [found[asked[prompt]] if prompt in asked else empty for prompt in whole]
        return np.array(rows).reshape(len(rewrites), len(examples))

    def _whole(self, rewrites: Rewrites) -> list[TaskPrompt]:
        """Whole prompts. Raises `CapabilityError` for one in turns that the task model does not take."""
        prompts = [self.prompt_of(rewrite) for rewrite in rewrites]
        if any(prompt.in_turns and prompt.layout not in self.layouts for prompt in prompts):
            raise CapabilityError(
                f"the prompt's layout is 'turns'; {cannot(self.task_model, 'turns')}; choose a task model that chats, "
                f"or one of the layouts {', '.join(TEXT_LAYOUTS)}"
            )
        return prompts

    def _ask(self, decoding: Decoding, choices: tuple[str, ...], pairs: Sequence[Asked]) -> dict[Asked, Answer]:
        """The graded answer of each pair that got one."""
        method: Method = "label_logprobs" if decoding == "likelihood" else decoding
        own, answers = is_own(self.metric), {}
        for pair, value in self._replies(method, pairs, labels=choices).items():
            prompt, example = pair
            if isinstance(value, tuple):
                best = int(np.argmax(np.subtract(value, prompt.offsets_of(choices))))  # a tie: the earlier label
                answers[pair] = self._graded(pair, choices[best], choices[best], value)
            else:
                output = prediction = str(value)
                if decoding == "generate":
                    prediction = output.strip() if own else parse_answer(output, example)
                answers[pair] = self._graded(pair, output, prediction)
        return answers

    def _replies(
        self,
        method: Method,
        pairs: Sequence[Asked],
        *,
        labels: tuple[str, ...] = (),
        targets: tuple[str, ...] = (),
    ) -> dict[Asked, Value]:
        """What the task model says to each pair; the row of one without an answer is left out."""
        prompts = tuple(prompt.sent(example.input) for prompt, example in pairs)
        found: dict[Asked, Value] = {}
        batch, answered, name = Batch(method, prompts, labels=labels, targets=targets), 0, self.task_model.name
        with closing(stream(self.task_model, batch)) as replies:
            for row, reply in replies:
                answered += 1
                if isinstance(reply.value, NoAnswer):
                    self.left_out.add(pairs[row][1], reply.value.reason, task_model=name)
                elif is_answer(reply.value, batch):
                    found[pairs[row]] = reply.value
                else:
                    raise TaskModelError(
                        f"{name} gave {str(reply.value)[:80]!r} to {method}, which is no answer to it; the row begins "
                        f"{shown(pairs[row][1].input)}; numbers must be finite, and labels among those asked for"
                    )
        if answered != len(prompts):
            raise TaskModelError(f"{name} gave {answered} answers to {len(prompts)} prompts; it must answer each once")
        return found

    def _graded(
        self, pair: Asked, output: str, prediction: str, label_logprobs: tuple[float, ...] | None = None
    ) -> Answer:
        prompt, example = pair
        score = get_metric(self.metric_of(example))(prediction, example.targets)
        return Answer(prompt.render(example.input), output, prediction, score, label_logprobs)


def margin(answer: Answer, example: RewriteExample) -> float:
    """Log-probability of the gold label minus that of the best wrong one, in nats.

    Ranks rewrites that tie on accuracy. An empty rewrite gets `EMPTY_NATS`, a row that is left out NaN. Raises
    `CapabilityError` where no labels were scored.
    """
    if answer.no_answer:
        return float("nan")
    if not answer.prompt:
        return EMPTY_NATS
    if answer.label_logprobs is None or not example.choices:
        raise CapabilityError("reward_mode 'soft' needs classification rows and a backend that scores labels")
    pairs = list(zip(answer.label_logprobs, example.choices, strict=True))
    gold = [logprob for logprob, label in pairs if label in example.targets]
    wrong = [logprob for logprob, label in pairs if label not in example.targets]
    return max(gold) - max(wrong) if wrong else 0.0
