"""The one place where a rewrite meets the task.

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
from prewrite.scoring.templates import TASK_TEMPLATE, check_task_template
from prewrite.task_models.base import TaskModel
from prewrite.text import fill
from prewrite.types import DECODINGS, Answer, Decoding, RewriteExample

EMPTY_NATS = -10.0
"""What an empty rewrite gets where log-probabilities are counted: a confident wrong label's margin, or a gold answer
whose every token was a draw from 22,000. A finite number, so that one empty rewrite does not drown the others."""


class Evaluator:
    """Scores rewrites on examples with a frozen task model.

    Args:
        task_model: any backend or wrapper.
        metric: a name in `metrics.METRICS`, `auto` (numeric match for math, token F1 for qa, label match or exact
            match for the rest), or your own function as `file.py:function`.
        decoding: how an answer is read. `likelihood`: the label with the highest log-probability. `constrained`: the
            backend's own structured output. `generate`: free text and a parser. `auto`: `likelihood` for
            classification where the backend scores labels, `constrained` where it only constrains, else `generate`.
        template: the task prompt, with the slots `{instruction}` and `{input}`.

    These are different scorers: one evaluator reads every answer of a kind of task in one way, named by `decoding_of`.
    """

    def __init__(
        self,
        task_model: TaskModel,
        *,
        metric: str = "auto",
        decoding: str = "auto",
        template: str = TASK_TEMPLATE,
    ):
        if decoding not in ("auto", *DECODINGS):
            raise ConfigError(f"decoding {decoding!r} is unknown; choose one of auto, {', '.join(DECODINGS)}")
        if metric != "auto":
            get_metric(metric)
        check_task_template(template)
        self.task_model = task_model
        self.metric = metric
        self.decoding = decoding
        self.template = template

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

    def prompt(self, rewrite: str, example: RewriteExample) -> str:
        """The task prompt: the template with the rewrite and the input put in, in one pass."""
        return fill(self.template, {"instruction": rewrite, "input": example.input})

    def score(self, rewrites: Sequence[str], examples: Sequence[RewriteExample]) -> NDArray[np.float64]:
        """Scores in [0, 1]; (rewrite, example)."""
        answers = self.answers(rewrites, examples)
        return np.array([[answer.score for answer in row] for row in answers]).reshape(len(rewrites), len(examples))

    def answers(self, rewrites: Sequence[str], examples: Sequence[RewriteExample]) -> list[list[Answer]]:
        """The graded answers; [rewrite][example]. An empty rewrite is the rewriter's fault: it scores 0, unasked."""
        asked: dict[tuple[str, RewriteExample], Answer] = {}
        jobs: dict[tuple[Decoding, tuple[str, ...]], list[tuple[str, RewriteExample]]] = {}
        for rewrite in dict.fromkeys(rewrites):
            for example in dict.fromkeys(examples):
                if rewrite.strip():
                    decoding = self.decoding_of(example)
                    choices = () if decoding == "generate" else example.choices or ()
                    jobs.setdefault((decoding, choices), []).append((rewrite, example))
                else:
                    asked[rewrite, example] = Answer(prompt="", output="", prediction="", score=0.0)
        for (decoding, choices), pairs in jobs.items():
            for pair, answer in zip(pairs, self._ask(decoding, choices, pairs), strict=True):
                asked[pair] = answer
        return [[asked[rewrite, example] for example in examples] for rewrite in rewrites]

    def target_logprobs(self, rewrites: Sequence[str], examples: Sequence[RewriteExample]) -> NDArray[np.float64]:
        """Mean log-probability per token of the first gold answer, at most 0; (rewrite, example).

        Its negative is the log-perplexity of the paper's appendix D. An empty rewrite is the rewriter's fault: nothing
        is asked, and on each example it gets `EMPTY_NATS`, or the lowest value of the others where that is lower
        still, so that none of them earns less. Raises `CapabilityError` where the backend cannot score a given text.
        """
        if "target_logprobs" not in self.task_model.capabilities:
            raise CapabilityError(f"{self.task_model.name} cannot score a given text, which perplexity rewards need")
        asked = {rewrite: index for index, rewrite in enumerate(dict.fromkeys(filter(str.strip, rewrites)))}
        prompts = [self.prompt(rewrite, example) for rewrite in asked for example in examples]
        targets = [example.targets[0] for _ in asked for example in examples]
        values = self.task_model.target_logprobs(prompts, targets) if asked else []
        found = np.array(values, dtype=np.float64).reshape(len(asked), len(examples))
        empty = found.min(axis=0, initial=EMPTY_NATS)
        rows = [found[asked[rewrite]] if rewrite in asked else empty for rewrite in rewrites]
        return np.array(rows).reshape(len(rewrites), len(examples))

    def _ask(
        self, decoding: Decoding, choices: tuple[str, ...], pairs: Sequence[tuple[str, RewriteExample]]
    ) -> list[Answer]:
        prompts = [self.prompt(rewrite, example) for rewrite, example in pairs]
        examples = [example for _, example in pairs]
        if decoding == "likelihood":
            table = self.task_model.label_logprobs(prompts, choices)
            outputs = [choices[int(best)] for best in table.argmax(axis=1)]  # a tie goes to the earlier label
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
