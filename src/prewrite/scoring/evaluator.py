"""The one place where a prompt meets the task.

Reward, search, dev stopping and final evaluation all call `Evaluator`, so they cannot disagree about what a prompt
looks like, how an answer is read, or what counts as right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prewrite.errors import CapabilityError, ConfigError
from prewrite.scoring.answers import parse_answer
from prewrite.scoring.metrics import get_metric, is_own, metric_for
from prewrite.scoring.prompt import TaskPrompt
from prewrite.scoring.templates import TASK_TEMPLATE, get_task_template
from prewrite.task_models.base import TaskModel
from prewrite.types import DECODINGS, Answer, Decoding, RewriteExample

EMPTY_NATS = -10.0
"""What an empty rewrite gets where log-probabilities are counted: a confident wrong label's margin, or a gold answer
whose every token was a draw from 22,000. A finite number, so that one empty rewrite does not drown the others."""


Prompts = Sequence[str | TaskPrompt]
"""What is scored: whole prompts, or wordings of an instruction, which the evaluator's `around` makes whole."""


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
            template goes before `template`.

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
    ):
        if decoding not in ("auto", *DECODINGS):
            raise ConfigError(f"decoding {decoding!r} is unknown; choose one of auto, {', '.join(DECODINGS)}")
        if metric != "auto":
            get_metric(metric)
        self.task_model = task_model
        self.metric = metric
        self.decoding = decoding
        self.around = around or TaskPrompt("", template=get_task_template(template))

    def prompt_of(self, prompt: str | TaskPrompt) -> TaskPrompt:
        """The whole prompt: a bare instruction among the parts of `around`."""
        return self.around.with_instruction(prompt) if isinstance(prompt, str) else prompt

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
        needs = {"likelihood": "label_logprobs", "constrained": "constrained", "generate": "generate"}[decoding]
        if needs not in can:
            raise CapabilityError(
                f"decoding {decoding!r} needs {needs}, which {self.task_model.name} cannot do "
                f"(it can: {', '.join(sorted(can))}); choose another decoding or backend"
            )
        return decoding

    def metric_of(self, example: RewriteExample) -> str:
        """The name of the metric that grades this example."""
        return metric_for(example.task) if self.metric == "auto" else self.metric

    def prompt(self, rewrite: str | TaskPrompt, example: RewriteExample) -> str:
        """The text that the task model is sent."""
        return self.prompt_of(rewrite).render(example.input)

    def score(self, rewrites: Prompts, examples: Sequence[RewriteExample]) -> NDArray[np.float64]:
        """Scores in [0, 1]; (prompt, example)."""
        answers = self.answers(rewrites, examples)
        return np.array([[answer.score for answer in row] for row in answers]).reshape(len(rewrites), len(examples))

    def answers(self, rewrites: Prompts, examples: Sequence[RewriteExample]) -> list[list[Answer]]:
        """The graded answers; [prompt][example]. An empty rewrite is the rewriter's fault: it scores 0, unasked."""
        prompts = [self.prompt_of(rewrite) for rewrite in rewrites]
        asked: dict[tuple[TaskPrompt, RewriteExample], Answer] = {}
        jobs: dict[tuple[Decoding, tuple[str, ...]], list[tuple[TaskPrompt, RewriteExample]]] = {}
        for prompt in dict.fromkeys(prompts):
            for example in dict.fromkeys(examples):
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
            for pair, answer in zip(pairs, self._ask(decoding, choices, pairs), strict=True):
                asked[pair] = answer
        return [[asked[prompt, example] for example in examples] for prompt in prompts]

    def target_logprobs(self, rewrites: Prompts, examples: Sequence[RewriteExample]) -> NDArray[np.float64]:
        """Mean log-probability per token of the first gold answer, at most 0; (rewrite, example).

        Its negative is the log-perplexity of the paper's appendix D. An empty rewrite is the rewriter's fault: nothing
        is asked, and on each example it gets `EMPTY_NATS`, or the lowest value of the others where that is lower
        still, so that none of them earns less. Raises `CapabilityError` where the backend cannot score a given text.
        """
        if "target_logprobs" not in self.task_model.capabilities:
            raise CapabilityError(f"{self.task_model.name} cannot score a given text, which perplexity rewards need")
        whole = [self.prompt_of(rewrite) for rewrite in rewrites]
        asked = {prompt: index for index, prompt in enumerate(dict.fromkeys(p for p in whole if not p.empty))}
        prompts = [prompt.render(example.input) for prompt in asked for example in examples]
        targets = [example.targets[0] for _ in asked for example in examples]
        values = self.task_model.target_logprobs(prompts, targets) if asked else []
        found = np.array(values, dtype=np.float64).reshape(len(asked), len(examples))
        empty = found.min(axis=0, initial=EMPTY_NATS)
        rows = [found[asked[prompt]] if prompt in asked else empty for prompt in whole]
        return np.array(rows).reshape(len(rewrites), len(examples))

    def _ask(
        self, decoding: Decoding, choices: tuple[str, ...], pairs: Sequence[tuple[TaskPrompt, RewriteExample]]
    ) -> list[Answer]:
        prompts = [prompt.render(example.input) for prompt, example in pairs]
        examples = [example for _, example in pairs]
        if decoding == "likelihood":
            table = self.task_model.label_logprobs(prompts, choices)
            offsets = np.array([prompt.offsets_of(choices) for prompt, _ in pairs])
            outputs = [choices[int(best)] for best in (table - offsets).argmax(axis=1)]  # a tie: the earlier label
            logprobs = [tuple(map(float, row)) for row in table]
            return [
                self._graded(prompt, output, output, example, row)
                for prompt, output, example, row in zip(prompts, outputs, examples, logprobs, strict=True)
            ]
        if decoding == "constrained":
            outputs = self.task_model.constrained(prompts, choices)
            return [self._graded(p, o, o, e) for p, o, e in zip(prompts, outputs, examples, strict=True)]
        outputs = self.task_model.generate(prompts)
        own = is_own(self.metric)
        return [
            self._graded(prompt, output, output.strip() if own else parse_answer(output, example), example)
            for prompt, output, example in zip(prompts, outputs, examples, strict=True)
        ]

    def _graded(
        self,
        prompt: str,
        output: str,
        prediction: str,
        example: RewriteExample,
        label_logprobs: tuple[float, ...] | None = None,
    ) -> Answer:
        score = get_metric(self.metric_of(example))(prediction, example.targets)
        return Answer(prompt, output, prediction, score, label_logprobs)


def margin(answer: Answer, example: RewriteExample) -> float:
    """Log-probability of the gold label minus that of the best wrong one, in nats.

    Ranks rewrites that tie on accuracy. An empty rewrite gets `EMPTY_NATS`. Raises `CapabilityError` where no labels
    were scored.
    """
    if not answer.prompt:
        return EMPTY_NATS
    if answer.label_logprobs is None or not example.choices:
        raise CapabilityError("reward_mode 'soft' needs classification rows and a backend that scores labels")
    pairs = list(zip(answer.label_logprobs, example.choices, strict=True))
    gold = [logprob for logprob, label in pairs if label in example.targets]
    wrong = [logprob for logprob, label in pairs if label not in example.targets]
    return max(gold) - max(wrong) if wrong else 0.0
