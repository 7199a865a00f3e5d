"""How a prediction is graded, and how it is read from free text.

A metric is a function `(prediction, targets) -> score` in [0, 1], best over the accepted gold answers; higher is
better. Normalisation and token F1 follow SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250) with one departure: a step
that would leave nothing is skipped, so that "a" and "the", or "+" and "-", stay different answers.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

from prewrite.errors import ConfigError
from prewrite.text import mention
from prewrite.types import RewriteExample

Metric = Callable[[str, Sequence[str]], float]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_LABEL_EDGES = string.whitespace + "\"'`*_.,:;!?()[]\u201c\u201d\u2018\u2019"
# Sign, then digits (grouped by commas or not) with an optional decimal part, exponent and denominator. A sign counts
# only where no operand precedes it ("10-5" ends in 5); a digit glued behind a letter ("H2O") is no number.
_NUMBER = re.compile(
    r"(?<![\w.])(?:(?<![\w)])(?P<sign>[-\u2212]))?[$€£]?(?P<inner>[-\u2212])?"
    r"(?P<digits>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?:[eE](?P<exponent>[-+]?[0-9]{1,3})(?!\w))?(?:/(?P<denominator>[1-9][0-9]*)(?![/0-9]))?"
)
_FRAC = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
_BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
_ANSWER_IS = re.compile(r"\banswer(?:\s+is|\s*:)", re.IGNORECASE)
_ANSWER_CUE = re.compile(r"^(?:output|answer)\s*:\s*(?=\S)", re.IGNORECASE)
# A model that was not stopped goes on with the next example of the pattern it sees in the task template.
_NEXT_EXAMPLE = re.compile(r"\n\s*(?:input|question|instruction|article|text)\s*:", re.IGNORECASE)


def normalise(text: str) -> str:
    """Lower-case, without punctuation, articles and extra spaces; a step that would leave nothing is skipped.

    >>> normalise("The  Eiffel Tower!"), normalise("A."), normalise("?!")
    ('eiffel tower', 'a', '?!')
    """
    words = " ".join(unicodedata.normalize("NFC", text).lower().split())
    words = " ".join(words.translate(_PUNCTUATION).split()) or words
    return " ".join(_ARTICLES.sub(" ", words).split()) or words


def exact_match(prediction: str, targets: Sequence[str]) -> float:
    """1.0 if the prediction equals a target after `normalise`, else 0.0.

    >>> exact_match("the Kris Allen.", ["Kris Allen"]), exact_match("the", ["a"])
    (1.0, 0.0)
    """
    normal = normalise(prediction)
    return float(any(normal == normalise(target) for target in targets))


def token_f1(prediction: str, targets: Sequence[str]) -> float:
    """Best harmonic mean of precision and recall over bags of normalised tokens, as SQuAD.

    Bags, not sets: a repeated token counts once per occurrence, so repetition does not pay.

    >>> token_f1("Paris Paris Paris Paris", ["Paris"])  # precision 1/4, recall 1
    0.4
    """
    return max((_bag_f1(normalise(prediction).split(), normalise(target).split()) for target in targets), default=0.0)


def _bag_f1(predicted: Sequence[str], gold: Sequence[str]) -> float:
    if not predicted or not gold:
        return float(predicted == gold)
    common = sum((Counter(predicted) & Counter(gold)).values())
    return 2 * common / (len(predicted) + len(gold))


def numeric_match(prediction: str, targets: Sequence[str]) -> float:
    """1.0 if the last number in the prediction equals the last number of a target, else 0.0.

    `1,080`, `1080.0` and `$1,080` are one number; `3/4` is 0.75; `50%` is 50 (not 0.5), as gold answers to "what
    percentage" are; `-5` is negative, `10-5` ends in 5. Equal means within a relative 1e-9.

    >>> numeric_match("She pays $1,080.", ["1080"]), numeric_match("no idea", ["3"])
    (1.0, 0.0)
    """
    predicted = last_number(prediction)
    if predicted is None:
        return 0.0
    golds = (last_number(target) for target in targets)
    return float(any(gold is not None and math.isclose(predicted, gold, rel_tol=1e-9) for gold in golds))


def last_number(text: str) -> float | None:
    """The last number in `text`, or None."""
    matches = list(_NUMBER.finditer(_plain_numbers(text)))
    return _value(matches[-1]) if matches else None


def _value(match: re.Match[str]) -> float:
    sign = -1.0 if match["sign"] or match["inner"] else 1.0
    value = float(match["digits"].replace(",", "") + (f"e{match['exponent']}" if match["exponent"] else ""))
    return sign * value / (float(match["denominator"]) if match["denominator"] else 1.0)


def _plain_numbers(text: str) -> str:
    """LaTeX spelling of numbers made plain: `\\frac{3}{4}`, `1{,}080`, `\\$5`."""
    if "\\" not in text and "{,}" not in text:
        return text
    return _FRAC.sub(r"\1/\2", text.replace("{,}", ",").replace("\\$", "$").replace("\\,", ""))


def label_match(prediction: str, targets: Sequence[str]) -> float:
    """1.0 if the prediction is a target up to case, spacing, and quotes or stops around it, else 0.0.

    Stricter than `exact_match`: punctuation inside a label counts ("c++" is not "c").

    >>> label_match(' "Positive".', ["positive"]), label_match("c", ["c++"])
    (1.0, 0.0)
    """
    label = _bare_label(prediction)
    return float(any(label == _bare_label(target) for target in targets))


def _bare_label(text: str) -> str:
    words = " ".join(unicodedata.normalize("NFC", text).casefold().split())
    return words.strip(_LABEL_EDGES) or words


def bleu(prediction: str, targets: Sequence[str]) -> float:
    """Sentence BLEU of sacrebleu with effective order and exponential smoothing, divided by 100.

    The targets are references of one BLEU, not separate ones to take the best of.
    """
    if not prediction.strip():
        return float(any(not target.strip() for target in targets))
    return min(1.0, float(_sacrebleu().sentence_score(prediction, list(targets)).score) / 100)


@lru_cache(maxsize=1)
def _sacrebleu() -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=True)


METRICS: dict[str, Metric] = {
    "exact_match": exact_match,
    "token_f1": token_f1,
    "numeric_match": numeric_match,
    "label_match": label_match,
    "bleu": bleu,
}


def get_metric(name: str) -> Metric:
    """The metric of that name, or your own: `file.py:function` or `module:function`.

    Raises `ConfigError` listing the names, or telling why your own cannot be used.
    """
    if name in METRICS:
        return METRICS[name]
    if is_own(name):
        return _own_metric(name)
    raise ConfigError(
        f"metric {name!r} is unknown; choose one of {', '.join(METRICS)}, or give your own as file.py:function"
    )


def is_own(name: str) -> bool:
    """Whether `name` is the path of a user's function; such a metric is given a written answer whole, not parsed."""
    return ":" in name


@lru_cache(maxsize=16)
def _own_metric(path: str) -> Metric:
    place, _, name = path.rpartition(":")
    grade = getattr(_import(place, path), name, None)
    if not callable(grade):
        raise ConfigError(f"metric {path!r}: there is no function {name!r} in {place}")

    def metric(prediction: str, targets: Sequence[str]) -> float:
        score = grade(prediction, targets)
        if not isinstance(score, Real) or not 0 <= float(score) <= 1:
            raise ConfigError(
                f"metric {path!r} returned {score!r} for the prediction {prediction[:80]!r}; it must return a number "
                "from 0 to 1, higher is better"
            )
        return float(score)

    return metric


def _import(place: str, path: str) -> ModuleType:
    """The module at `place`: a Python file, or a name that Python can import."""
    if not place.endswith(".py"):
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            raise ConfigError(f"metric {path!r}: {error}; give a file as file.py:function, or install it") from None
    if not Path(place).is_file():
        raise ConfigError(f"metric {path!r}: there is no file {place}")
    spec = importlib.util.spec_from_file_location(Path(place).stem, place)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def metric_for(task: str | None) -> str:
    """The metric that `auto` means: math by number, qa by token F1, classification by label, else exact match."""
    return {"math": "numeric_match", "qa": "token_f1", "classification": "label_match"}.get(task or "", "exact_match")


def parse_answer(output: str, example: RewriteExample) -> str:
    """The prediction in a task model's free text; what `generate` decoding grades.

    - With `choices`: the label that is mentioned first, as whole words, in any case; the longest where labels overlap.
      Words around it are not read: "not positive" is "positive". Without any mention, the first line.
    - math: the number after `####`, in the last `\\boxed{}`, or after the last "answer is"; else the last number; else
      the first line.
    - otherwise: the first non-empty line, without a leading "Answer:" or "Output:".

    Text from the next "Input:" or "Question:" line on is dropped: there the model makes up another example.

    >>> parse_answer("So 3 + 4 = 7. The answer is 7 apples, not 12.", RewriteExample("", "", "7", task="math"))
    '7'
    """
    text = output.strip()
    continuation = _NEXT_EXAMPLE.search(text)
    if continuation:
        text = text[: continuation.start()].rstrip()
    line = _ANSWER_CUE.sub("", text.split("\n", 1)[0].strip())
    if example.choices:
        found = mention(*example.choices).search(text)
        return _label_of(found.group(), example.choices) if found else line
    if example.task == "math":
        return _math_answer(text) or line
    return line


def _label_of(found: str, choices: Sequence[str]) -> str:
    """The label as spelled in `choices`; the mention's own case decides between labels that differ in case only."""
    spelled = " ".join(found.split())
    same = [label for label in choices if " ".join(label.split()).lower() == spelled.lower()]
    return spelled if spelled in same or not same else same[0]


def _math_answer(text: str) -> str:
    text = _plain_numbers(text)
    if "####" in text:
        found = _NUMBER.search(text, text.index("####") + 4)
        if found:
            return found.group()
    boxed = _BOXED.findall(text)
    if boxed:
        numbers = list(_NUMBER.finditer(boxed[-1]))
        if numbers:
            return numbers[-1].group()
    announced = list(_ANSWER_IS.finditer(text))
    if announced:
        phrase = re.split(r"\n|\.\s", text[announced[-1].end() :].lstrip(), maxsplit=1)[0]
        # "the answer is 3 + 4 = 7 apples": what stands behind the last equals sign is the result.
        found = _NUMBER.search(phrase.rpartition("=")[2]) or _NUMBER.search(phrase)
        if found:
            return found.group()
    numbers = list(_NUMBER.finditer(text))
    return numbers[-1].group() if numbers else ""
