"""What a task model's free text answers: the label, number or short answer in it that is graded.

Text from the next "Input:" or "Question:" line on is never read: there the model makes up another example.
"""

from __future__ import annotations

import re

from prewrite.scoring.cues import (
    announced,
    first_sentence,
    holds_answer,
    is_object,
    json_fields,
    marked,
    one_answer,
    without_numbering,
)
from prewrite.scoring.labels import read_label
from prewrite.scoring.numbers import find_numbers, holds_number, plain
from prewrite.types import RewriteExample

_FINAL_LINE = re.compile(r"####:?[ \t]*[*_]*(?:(?i:final )?(?i:answer)[ \t]+)?(?!\d+[.):][ \t]+\w)(?=[-$€£¥√.\d])(.*)")
_IS_THE_ANSWER = re.compile(r"\sis\s(?:the|my|our|your)\s(?:(?:final|correct)\s)?answer\b", re.IGNORECASE)
_SUM = re.compile(r"(?:(?!\b(?:because|since|as|where|when|if|for)\b)[^=(,;:])*=", re.IGNORECASE)
_ANSWER_LINE = re.compile(
    r"^[\s*_#>-]*(?:(?:the|my|final|short|correct)\s)*answer[*_]*\s*(?:[:：]|(?=\n))[\s*_]*(\S[^\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_OUTPUT_CUE = re.compile(r"^[\s*_#>]*(?:output|response|result|solution)[*_]*\s*[:：][\s*_]*(?=\S)", re.IGNORECASE)


def parse_answer(output: str, example: RewriteExample) -> str:
    """The prediction in a task model's free text; what `generate` decoding grades.

    - With `choices`: the label, by the rules of `labels.py`; empty where the text names none, or several.
    - math: the number, by the rules of `read_number`; the short answer where the text holds no number at all.
    - otherwise: the short answer, by the rules of `read_short_answer`.

    >>> parse_answer("So 3 + 4 = 7. The answer is 7 apples, not 12.", RewriteExample("", "", "7", task="math"))
    '7'
    """
    text = one_answer(output)
    if example.choices:
        return read_label(text, example.choices)
    if example.task == "math" and holds_number(text):
        return read_number(text)
    return read_short_answer(text)


def read_number(text: str) -> str:
    r"""The number that a text answers with, as `numbers.plain` spells it; empty where it holds none.

    The first of these that gives one: a JSON field named `answer` or the like; the last line of `####` and a number,
    as the answers of GSM8K end (Cobbe et al. 2021, arXiv 2110.14168); the last `\boxed{}` or `<answer>`; the last
    announcement ("The answer is 3 + 4 = 7 apples" is 7); a first line that is a number and nothing else; the last
    number that does not number a heading, a step or a list item.

    >>> read_number("**Answer**: 42 (after 3 steps)"), read_number("#### Step 2"), read_number("First 12, then 30.")
    ('42', '', '30')
    """
    text = plain(text)
    fields = [field for field in json_fields(text) if holds_answer(field[0])]
    fields.sort(key=lambda field: "answer" not in field[0])
    for told in (*(value for _, value in fields), *reversed(_FINAL_LINE.findall(text))):
        if number := _result(told):
            return number
    for content in marked(text):
        if found := find_numbers(content):
            return found[-1].group()
    for phrase in announced(text):
        if number := _result(first_sentence(phrase)):
            return number
    for cue in _IS_THE_ANSWER.finditer(text):
        if found := find_numbers(text[max(0, cue.start() - 40) : cue.start()]):
            return found[-1].group()
    first_line = text.lstrip().split("\n", 1)[0].strip("*_ ").rstrip(".")
    found = find_numbers(first_line)
    if found and found[0].group() == first_line:
        return first_line
    found = find_numbers(without_numbering(text))
    return found[-1].group() if found else ""


def _result(phrase: str) -> str:
    """The number that a phrase begins with; where that begins a sum, the number behind the last equals sign."""
    found = find_numbers(phrase)
    if not found:
        return ""
    if _SUM.match(phrase, found[0].end()):
        found = find_numbers(phrase.rpartition("=")[2]) or found
    return found[0].group()


def read_short_answer(text: str) -> str:
    r"""The short answer that a text gives.

    The field `answer` where the text is one JSON object and nothing else; else the last `\boxed{}` or `<answer>`; else
    what the last line that begins with "Answer:" says, there or on the next line; else the sentence behind the last
    "the answer is"; else the first line, without an "Output:", "Response:" or the like before it.

    >>> read_short_answer("**Answer:** Paris"), read_short_answer("Answer:\nParis"), read_short_answer("Rome\nIt is.")
    ('Paris', 'Paris', 'Rome')
    """
    if is_object(text):
        for name, value in json_fields(text):
            if name.rpartition("_")[2] == "answer" and value.strip():
                return value.strip()
    for content in marked(text):
        return re.sub(r"\\\w+|[{}]", "", content).strip()
    cued = _ANSWER_LINE.findall(text)
    if cued:
        return _unwrapped(cued[-1])
    for phrase in announced(text):
        return _unwrapped(first_sentence(phrase))
    return _OUTPUT_CUE.sub("", text).split("\n", 1)[0].strip()


def _unwrapped(answer: str) -> str:
    """Without the end of the bold type that began before it."""
    return answer.strip().strip("*_").strip() or answer
