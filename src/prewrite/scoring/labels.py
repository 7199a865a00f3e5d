"""Which of its task's labels a free text answers with.

The first of these rules that finds a label decides:

1. The whole answer is a label, in any case, but for quotes, brackets, bold and stops around it.
2. A JSON field: those named `label`, `answer` or the like, and nothing else where there are such; else any whose whole
   value is a label.
3. The last `\\boxed{}`, `<answer>`, `<label>` or the like.
4. The last announcement: "Answer: B", "the answer is B", "B is the correct answer".
5. A label that opens the answer before a stop or a line's end, or that has a line for itself.
6. A statement: "the sentiment is B", "classified as B", "I would say B".
7. A mention (see `mentions.py`).

Rules 5 to 7 find nothing where they find different labels. No rule reads "not positive" as an answer: that it is not
one label does not say that it is the other.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from functools import lru_cache

from prewrite.scoring.cues import announced, first_sentence, holds_answer, json_fields, marked, without_numbering
from prewrite.scoring.mentions import CLOSE, OPEN, LabelFinder, even

_EDGES = string.whitespace + "\"'`*_.,:;!?()[]{}“”‘’„«»「」『』《》【】。、，：；！？…"
_REASON = r"\s(?:because|since|as(?!\s+well)|although|(?:even\s+)?though|despite|while|whereas|in\s+spite\s+of)\s"
_DEEPEST = 8
"""Marks within marks that are looked into; a model that repeats itself writes thousands."""
_STOP = re.compile(
    rf"{CLOSE}(?:\s(?:review|sentiment|text|sentence|article|statement|comment|message|tweet|tone)\b)?"
    rf"\s*?(?:$|[.,;:!\n。、]|\s-+\s|\s\(|\s*->|\s*→|{_REASON})"
)
_FIRST_STOP = re.compile(rf"[.,;:!](?=\s|$)|\s\(|\s-+\s|{_REASON}")
_STATED = re.compile(
    rf"""
    (?: \b(?:sentiment|label|class|category|classification|topic|rating|tone|verdict|prediction|result|output|response
            |choice|option|relation|relationship|conclusion|review|text|sentence|article|statement|comment|message|tweet|input)\b
        (?: [^.:,;\n]{{0,40}}? (?:\b(?:is|was|would\ be|should\ be|leans|expresses|conveys|reflects)\b|'s\b)
          | (?:\ of\b[^.:,;\n]{{0,30}}|\ (?:assigned|chosen|score))?[*_"]*\s*(?:[:=→]|->) )
      | (?:^|[.!?;,\n]\s+)(?:so|thus|hence|therefore|overall|ultimately|consequently
            |all\ in\ all|on\ balance|on\ the\ whole|to\ sum\ up|in\ (?:short|conclusion|summary|the\ end))\b,?
      | \b(?:classif|categori|label|rate|tag|identif|regard|consider)\w*\b [^.:,;\n]{{0,40}}? \b(?:as|under|into)\b
      | \b(?:falls?|belongs?|fits?)\s+(?:best\s+)?(?:under|into|to|in|within)\b
      | \bI(?:\ would|\ will|\ am|'d|'ll|'m)?\s+
            (?:say|choose|pick|select|go(?:ing)?\ (?:with|for)|lean(?:ing)?|conclude)\b
      | \bI\s+(?:think|believe|guess|feel)\s+(?:that\s+)?(?:it|this|that)(?:'s|\s+is|\s+(?:should|would|must)\s+be)\b )
    (?:\s*(?:[:"'*(]|\b(?:a|an|the|that|it|is|as|clearly|definitely|mostly|mainly|largely|overwhelmingly|overall
        |therefore|indeed|very|quite|strongly|towards?|likely|probably|option|choice|letter|label|category
        |class)\b))* {OPEN}$
    """,
    re.IGNORECASE | re.VERBOSE,
)
_CONFIRMED = (
    r"\b(?:is|would be|seems to be)\s+(?:(?:the|my|our|your)\s+)?"
    r"(?:(?:most\s+)?(?:correct|right|best|final|fitting)|answer)\b"
)
_IS_THE_ANSWER = re.compile(rf"{CLOSE}\s+{_CONFIRMED}", re.IGNORECASE)
# What may stand before a label that opens an answer.
_LEAD = re.compile(
    rf"""
    {OPEN}(?:(?:(?:it|this|that)(?:\ is|'s)|I\ (?:think|believe)|the|an?|option|choice|letter|label|class|category
        |likely|probably|clearly|definitely|obviously|certainly|simply|mostly|mainly|primarily|largely|very)\s+)*{OPEN}
    """,
    re.IGNORECASE | re.VERBOSE,
)


def read_label(text: str, choices: Sequence[str]) -> str:
    """The label that the text answers with, as spelled in `choices`; empty where it is none, or several.

    >>> read_label("Positive. Nothing negative about it.", ["positive", "negative"])
    'positive'
    >>> read_label("A good question! The answer is B", ["A", "B", "C"]), read_label("-1", ["1", "0"])
    ('B', '')
    """
    return _reader(tuple(choices)).read(text) or ""


def bare_label(text: str) -> str:
    """Lower case, with one form of spaces and of Unicode; without quotes, brackets, bold and stops around it.

    >>> bare_label(' **"Sci/  Tech".** '), bare_label("C++"), bare_label("?")
    ('sci/ tech', 'c++', '?')
    """
    words = " ".join(even(text).casefold().replace("_", " ").split())
    return words.strip(_EDGES) or words


@lru_cache(maxsize=256)
def _reader(choices: tuple[str, ...]) -> _LabelReader:
    return _LabelReader(choices)


class _LabelReader:
    """The rules for one set of labels; each gives a label or None."""

    def __init__(self, choices: tuple[str, ...]):
        self.by_spelling = {even(label): label for label in reversed(choices)}
        self.by_bare = {bare_label(label): label for label in reversed(choices)}
        self.finder = LabelFinder(choices)

    def read(self, text: str, depth: int = 0) -> str | None:
        if depth > _DEEPEST:
            return None
        text = even(text)
        if found := self.whole(text):
            return found
        fields = json_fields(text)
        if named := [value for name, value in fields if holds_answer(name)]:
            return _agreed(self.read(value, depth + 1) for value in named)
        if found := _agreed(self.whole(value) for _, value in fields):
            return found
        return self.marked(text, depth) or self.announced(text) or self.told(text)

    def whole(self, text: str) -> str | None:
        """The label that the text is and nothing else; in the text's own case first, for labels that differ in it."""
        return self.by_spelling.get(text.strip(_EDGES)) or self.by_bare.get(bare_label(text))

    def marked(self, text: str, depth: int) -> str | None:
        contents = (re.sub(r"\\\w+", "", content) for content in marked(text))
        return next(filter(None, (self.read(content, depth + 1) for content in contents)), None)

    def announced(self, text: str) -> str | None:
        found = next(filter(None, map(self.phrase, announced(text))), None)
        if found:
            return found
        if not re.search(_CONFIRMED, text, re.IGNORECASE):
            return None
        confirmed = [mention.label for mention in self.finder.find(text) if _IS_THE_ANSWER.match(text, mention.end)]
        return confirmed[-1] if confirmed else None

    def phrase(self, phrase: str) -> str | None:
        """An announced label: what the phrase begins with, else what its first sentence tells."""
        begins_with = self.whole(_FIRST_STOP.split(phrase, maxsplit=1)[0])
        if begins_with:
            return begins_with
        lead = _LEAD.match(phrase).end()  # type: ignore[union-attr]  # it matches nothing at least
        for mention in self.finder.find(phrase):
            if mention.start == lead:
                return mention.label
        return self.told(first_sentence(phrase))

    def told(self, text: str) -> str | None:
        """Rules 5 to 7."""
        if self.finder.numeric:
            text = without_numbering(text)
        mentions = self.finder.find(text)
        lead = _LEAD.match(text).end()  # type: ignore[union-attr]
        alone = [self.whole(line) for line in text.split("\n")]
        alone += [
            mention.label for mention in mentions[:1] if mention.start == lead and _STOP.match(text, mention.end)
        ]
        stated = [
            mention.label for mention in mentions if _STATED.search(text, max(0, mention.start - 99), mention.start)
        ]
        return _agreed(alone) or _agreed(stated) or _agreed(mention.label for mention in mentions)


def _agreed(labels: Iterable[str | None]) -> str | None:
    """The one label among those found; None where there is none, or where they differ."""
    found = set(filter(None, labels))
    return found.pop() if len(found) == 1 else None
