"""Where a free text says that something is its answer: JSON fields, `\\boxed{}`, `<answer>`, "the answer is".

Labels, numbers and short answers all look here first. What an announced phrase then means is their own affair.
"""

from __future__ import annotations

import json
import re
from collections import deque

ANSWER_FIELDS = (
    "answer", "final_answer", "label", "class", "category", "classification", "sentiment", "prediction", "choice",
    "verdict", "rating", "result", "output", "value",
)  # fmt: skip
"""Names of JSON fields that hold an answer, in lower case with underscores."""

_NAMES_AN_ANSWER = ("answer", "label", "class", "category", "classification", "sentiment", "prediction", "verdict")
"""Last words of names that do so too: `predicted_label`, `correct_answer`."""

_ANNOUNCED = re.compile(
    r"""
    (?: \b(?:answer|antwort|antwoord|réponse|respuesta|risposta|resposta|ответ|odpowiedź|odpověď|svar|vastaus|cevap
             |jawaban|الإجابة|الجواب|उत्तर|final\s+(?:result|solution|verdict|decision|choice|label|prediction|output|response))\b
      | \bans\b\.?(?=\s*[:=]) | 答案|答え|정답 )
    [*_"'`]* (?:\s+(?:final|finale|finala|correct[ae]?|correcta|corretta)\b 
      | \s+in\s+(?:one|two|three|a\s+few|\d+)\s+\w+
      | \s*\((?:in|as|to|one|short|brief|final|exact|rounded|approx\w*|numeric|number)\b[^()\n]{0,40}\))?
    (?:\s+(?:to|for)\s+(?:this|the|your|question|part|problem|q?\#?\d+)\b[^\n.,:=]{0,40}?)? [*_"'`]*
    (?:,\s[\w\s]{1,20},|\s+(?:here|then|therefore|I\s+(?:would\s+)?\w+)(?=\s))? \s*
    (?: (?:\b(?:is|was|remains|becomes|equals|comes\ (?:out\ )?to|amounts\ to|ist|lautet|est|es|è|é
             |(?:would|should|must|will|can|could|may|might|(?:has|seems|appears|turns\ out)\ to)(?:\ \w+)?\ be)\b
          |['’]s\b|[是为は은는])
        (?!\s*(?:not|n['’]t)\b)\s*[:：]?
      | [:：=→] | -> | \s[-–—]\s | (?=\n) )
    (?:[\s*_`"'“”‘’(\[<>|]|\$(?![-.\d]))*
    (?=(?P<phrase>[^\n]{1,400}))  # looked ahead at, since it may hold the next announcement
    """,
    re.IGNORECASE | re.VERBOSE,
)
_FIELD = re.compile(
    r"""
    (["'])(?P<name>\w[\w\ -]{0,40})\1 \s*:\s*
    (?: "(?P<double>(?:[^"\\]|\\.)*)" | '(?P<single>(?:[^'\\]|\\.)*)' | (?P<bare>-?[\w.+]+) )
    """,
    re.VERBOSE,
)
_BOXED = re.compile(r"\\f?boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_TAGGED = re.compile(r"<(?:final_?)?answer>\s*(.*?)\s*(?:</|$)", re.IGNORECASE | re.DOTALL)
_TAGGED_ELSE = re.compile(
    r"<(label|class|category|classification|sentiment|prediction|choice|verdict|result)>([^<>]*)</\1>", re.IGNORECASE
)
_FENCE = re.compile(r"^```\w*\s*\n|\n?```\s*$")
# A model that was not stopped goes on with the next example of the pattern it sees in the task template.
_NEXT_EXAMPLE = re.compile(r"\n[\s#*]*(?:input|question|instruction|article|text)[*]*\s*:", re.IGNORECASE)
# The words of a heading up to what it tells, if it tells something: "#### Step 2", "### Total" of "### Total: 15".
_HEADING = re.compile(
    r"""
    ^[ \t]*\#+[ \t]+[*_]*(?:\d+[.):][ \t]+)?[^\W\d][^:=\n]*?(?=\bis\b|[:=]|$)
    | ^[ \t*_]*(?:step|part|case)[ \t]+\d+\b
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_LIST_NUMBER = re.compile(r"^[ \t*_]*\(?\d{1,2}[.)][*_]*[ \t]+(?=\S)", re.MULTILINE)
_SENTENCE_END = re.compile(r"(\w*)[.!?]+[\"'”’)*_\]]*\s|[。！？]")
_ABBREVIATIONS = {
    "approx", "bros", "capt", "co", "col", "corp", "dr", "ft", "gen", "gov", "hon", "inc", "jr", "lt", "ltd", "mr",
    "mrs", "ms", "mt", "no", "prof", "rep", "rev", "sen", "sgt", "sr", "st", "vs",
}  # fmt: skip


def one_answer(output: str) -> str:
    """The text up to the next "Input:" or "Question:" line: from there on the model makes up another example."""
    text = output.strip()
    continuation = _NEXT_EXAMPLE.search(text)
    return text[: continuation.start()].rstrip() if continuation else text


def announced(text: str) -> list[str]:
    r"""What follows the last ten of "Answer:", "the answer is" and the like, up to the line's end; the last one first.

    "The answer is not 3" announces nothing.

    >>> announced("The answer is 3.\n**Final answer:** 4 apples")
    ['4 apples', '3.']
    """
    last = deque(_ANNOUNCED.finditer(text), maxlen=10)  # enough, and a model that repeats itself costs no more
    return [cue["phrase"] for cue in reversed(last)]


def first_sentence(text: str) -> str:
    """The text up to its first full stop, which is not that of an abbreviation or initial.

    >>> first_sentence("J. K. Rowling. She wrote it."), first_sentence("Paris")
    ('J. K. Rowling.', 'Paris')
    """
    for end in _SENTENCE_END.finditer(text):
        word = end[1] or ""
        if word.lower() not in _ABBREVIATIONS and not (len(word) == 1 and word.isupper()):
            return text[: end.end()].rstrip()
    return text


def marked(text: str) -> list[str]:
    r"""What stands in each `\boxed{}` or, without any, in each `<answer>`, `<label>` or the like; the last first.

    >>> marked(r"so \boxed{\frac{3}{4}}"), marked("<think>B?</think><answer>A</answer>")
    (['\\frac{3}{4}'], ['A'])
    """
    found = _BOXED.findall(text) if "boxed" in text else []
    found = found or _TAGGED.findall(text) or [content.strip() for _, content in _TAGGED_ELSE.findall(text)]
    return found[::-1]


def json_fields(text: str) -> list[tuple[str, str]]:
    """(name, value) of the fields in a JSON object or Python dict, even one that was cut off; values as text.

    >>> json_fields('{"reason": "short", "Final answer": 42, "why')
    [('reason', 'short'), ('final_answer', '42')]
    """
    if "{" not in text:
        return []
    fields = []
    for field in _FIELD.finditer(text):
        value = field["bare"] or field["single"] or field["double"] or ""
        if field["double"] and "\\" in value:
            value = _unescaped(value)
        fields.append((re.sub("[ -]", "_", field["name"].lower()), value))
    return fields


def holds_answer(field: str) -> bool:
    """Whether a JSON field of this name holds an answer.

    >>> holds_answer("label"), holds_answer("predicted_label"), holds_answer("reason")
    (True, True, False)
    """
    return field in ANSWER_FIELDS or field.rpartition("_")[2] in _NAMES_AN_ANSWER


def _unescaped(value: str) -> str:
    try:
        return str(json.loads(f'"{value}"', strict=False))
    except ValueError:  # LaTeX in it, say, with single backslashes
        return value


def is_object(text: str) -> bool:
    """Whether the text is one JSON object and nothing else, but for a code fence around it."""
    text = _FENCE.sub("", text).strip()
    return text.startswith("{") and text.endswith("}")


def without_numbering(text: str) -> str:
    r"""The text without headings ("#### Step 2"), and without the numbers of steps ("Step 2:") and of list items.

    >>> without_numbering("## 1. Add\nStep 2: the sum is 7.")
    '\n: the sum is 7.'
    """
    text = _HEADING.sub("", text)
    return _LIST_NUMBER.sub("", text) if len(_LIST_NUMBER.findall(text)) > 1 else text
