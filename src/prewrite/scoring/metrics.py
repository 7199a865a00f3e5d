"""How a prediction is graded. How it is read from a free text stands in `answers.py`.

A metric is a function `(prediction, targets) -> score` in [0, 1], best over the accepted gold answers; higher is
better. Normalisation and token F1 follow the evaluation script of SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250), and
go beyond it in four ways:

- a step that would leave nothing is skipped, so that "a" and "the", or "+" and "-", stay different answers;
- Unicode forms that look alike are equal (NFKC, case folding; invisible format characters are dropped);
- punctuation is all of Unicode's (categories P), where SQuAD drops ASCII's: “Paris” and Paris。 are Paris;
- token F1 takes each character of a script without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) as a token,
  as the evaluation script of MLQA (Lewis et al. 2020, arXiv 1910.07475) does for Chinese.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import string
import traceback
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from numbers import Real
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from prewrite.errors import ConfigError, MetricError
from prewrite.scoring.labels import bare_label
from prewrite.scoring.numbers import Value, equal, find_numbers, plain, value_of
from prewrite.text import shown

Metric = Callable[[str, Sequence[str]], float]

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


class _Punctuation(dict[int, str | None]):
    """For `str.translate`: drops ASCII punctuation, Unicode punctuation, and invisible format characters."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        category = unicodedata.category(character)
        dropped = category[0] == "P" or category == "Cf" or character in string.punctuation
        self[code] = None if dropped else character
        return self[code]


_PUNCTUATION = _Punctuation(dict.fromkeys(map(ord, "−´⁄∕")))  # written for - and ' and /


def normalise(text: str) -> str:
    """Lower-case, without punctuation, articles and extra spaces; a step that would leave nothing is skipped.

    >>> normalise("The  Eiffel Tower!"), normalise("“Paris”。"), normalise("A."), normalise("?!")
    ('eiffel tower', 'paris', 'a', '?!')
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.replace("´", "'"))
    words = " ".join(text.casefold().split())
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
    >>> token_f1("東京都", ["東京"])  # precision 2/3, recall 1
    0.8
    """
    return max((_bag_f1(_tokens(prediction), _tokens(target)) for target in targets), default=0.0)


def _tokens(text: str) -> list[str]:
    """Words, and single characters of scripts without spaces."""
    return _UNSPACED.sub(r" \g<0> ", normalise(text)).split()


def _bag_f1(predicted: Sequence[str], gold: Sequence[str]) -> float:
    if not predicted or not gold:
        return float(predicted == gold)
    common = sum((Counter(predicted) & Counter(gold)).values())
    return 2 * common / (len(predicted) + len(gold))


def numeric_match(prediction: str, targets: Sequence[str]) -> float:
    """1.0 if the last number in the prediction equals the last number of a target in value, else 0.0.

    What a written number is worth, and what counts as equal, stands in `numbers.py`.

    >>> numeric_match("She pays $1,080.", ["1080"]), numeric_match("12:30", ["11:30"]), numeric_match("no idea", ["3"])
    (1.0, 0.0, 0.0)
    """
    predicted = _last_value(prediction)
    if predicted is None:
        return 0.0
    golds = map(_last_value, targets)
    return float(any(gold is not None and equal(predicted, gold) for gold in golds))


def _last_value(text: str) -> Value | None:
    found = find_numbers(plain(text))
    return value_of(found[-1]) if found else None


def label_match(prediction: str, targets: Sequence[str]) -> float:
    """1.0 if the prediction is a target up to case, spacing, and quotes or stops around it, else 0.0.

    Stricter than `exact_match`: punctuation inside a label counts ("c++" is not "c").

    >>> label_match(' "Positive".', ["positive"]), label_match("c", ["c++"])
    (1.0, 0.0)
    """
    label = bare_label(prediction)
    return float(any(label == bare_label(target) for target in targets))


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
    module = _import(place, path)
    grade = getattr(module, name, None)
    if not callable(grade):
        known = [known for known, value in vars(module).items() if isinstance(value, FunctionType)]
        told = f"; it has {', '.join(known)}" if known else ""
        raise ConfigError(f"metric {path!r}: there is no function {name!r} in {place}{told}")

    if isinstance(grade, FunctionType):
        _check_arguments(grade, path)

    def metric(prediction: str, targets: Sequence[str]) -> float:
        with _running_own(path, f"for the prediction {shown(prediction)} and the targets {list(targets)!r:.200}"):
            score = grade(prediction, targets)
        if not isinstance(score, Real) or not 0 <= float(score) <= 1:
            raise MetricError(
                f"metric {path!r} returned {score!r} for the prediction {prediction[:80]!r}; it must return a number "
                "from 0 to 1, higher is better"
            )
        return float(score)

    return metric


def _check_arguments(grade: FunctionType, path: str) -> None:
    """Raise `ConfigError` for a function that cannot be called with a prediction and its targets."""
    signature, code = inspect.signature(grade), grade.__code__
    try:
        signature.bind("", [])
    except TypeError:
        raise ConfigError(
            f"metric {path!r} is {grade.__name__}{signature} ({code.co_filename}, line {code.co_firstlineno}); it "
            "must take two arguments, the prediction and the list of its targets"
        ) from None


def _import(place: str, path: str) -> ModuleType:
    """The module at `place`: a Python file, or a name that Python can import. Its code is run."""
    if not place.endswith(".py"):
        if not re.fullmatch(r"\w+(\.\w+)*", place):
            raise ConfigError(f"metric {path!r}: {place!r} is no module; give a file as file.py:function")
        try:
            with _running_own(path, "while it was imported"):
                return importlib.import_module(place)
        except MetricError as error:
            if isinstance(error.__cause__, ModuleNotFoundError):
                raise ConfigError(
                    f"metric {path!r}: {error.__cause__}; give a file as file.py:function, or install it"
                ) from None
            raise
    if not os.path.isfile(place):
        raise ConfigError(f"metric {path!r}: there is no file {place}")
    spec = importlib.util.spec_from_file_location(Path(place).stem, place)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    with _running_own(path, "while it was imported"):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _running_own(path: str, when: str) -> Iterator[None]:
    """Whatever the user's code raises in here becomes a `MetricError` that says what, where and when."""
    try:
        yield
    except (Exception, SystemExit) as error:  # any of them is the user's to mend; the cause goes along
        frames = traceback.extract_tb(error.__traceback__)
        at = f"{frames[-1].filename}, line {frames[-1].lineno}"
        if isinstance(error, SyntaxError):
            at = f"{error.filename}, line {error.lineno}"
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise MetricError(f"metric {path!r} raised {told} ({at}) {when}; correct the function") from error


def metric_for(task: str | None) -> str:
    """The metric that `auto` means: math by number, qa by token F1, classification by label, else exact match."""
    return {"math": "numeric_match", "qa": "token_f1", "classification": "label_match"}.get(task or "", "exact_match")
