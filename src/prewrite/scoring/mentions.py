"""Where a text mentions one of its task's labels, and where it only seems to.

A mention is a label as whole words, in any case, with any spaces or underscores between them; the longest one where
labels overlap. No mention is

- a label of one letter, or of two capitals (`IT`), in another case or glued to others: "A" before a word is an
  article, "I" a pronoun, and "no" a determiner;
- a label that is a number, within another number: 1 is not in "-1", "1.5", "1/2", "10" or "$1", though it is "1.0";
- the scale of a rating: "4/5" and "4 stars out of 5" mention only 4, where 5 is the highest label;
- a denied label: "not positive", "no negative words", "positive rather than negative", "negative is wrong";
- labels in a row ("positive or negative", "A, B, C"), that head parts of the text ("Positive: ... Negative: ...") or
  lines ("A. Paris"), or that are asked about ("Positive? Negative."): they name what there is to choose from.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from prewrite.text import whole_words

OPEN = r"[\s*_`\"'(\[<-]*"
"""What may stand before a label and belong to it: quotes, bold, brackets."""
CLOSE = r"[*_`\"')\]>]*"
"""What may stand behind it."""

_TYPOGRAPHY = str.maketrans(
    {**dict.fromkeys("–−‒‐‑", "-"), **dict.fromkeys("’‘´", "'"), **dict.fromkeys("“”„«»", '"')}
)
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
_MAGNITUDE = r"[\s-](?i:hundred|thousand|million|billion|trillion)\b"
# Words that are labels at times and little words of a sentence at others; and what may follow where they are labels.
_LITTLE_WORDS = ("a", "i", "no")
_NO_LITTLE_WORD = (
    r"(?!'\w)(?![ \t]+(?!(?:is|because|since|as|or|and|but|not|rather|over|due|it|that|this|he|she|they)\b)\w)"
)

_DENIED_BEFORE = re.compile(
    rf"""
    (?: \b(?: not(?!\s+(?:only|just|merely)\b) | (?:no|without)(?!\s+(?:an?\s+|any\s+)?(?:doubt|question)\b)
            | never|nor|neither|none|nothing|nobody|hardly|barely|rarely|seldom|scarcely|cannot|than|instead|opposite
            | lack(?:s|ed|ing)?|absence|non|far\ from | (?:fail|refus)\w*\ to | anything\ but
            | (?:is|are|was|were|do|does|did|has|would|could|should|ca|wo|ai)nt
            | nicht|kein\w*|weder|pas|ni|não|niet|geen|nie|inte|ikke|не|ليس\w* ) | n't )
    (?:[\s*_`"'(-]+(?!(?:but|however|yet|though|so|thus|hence|because|since|and\s+(?:it|is|was|so|thus|hence)
        |mais|sondern|aber|sino|pero|mas|maar|но)\b)[\w'-]+){{0,3}}?
    {OPEN}$
    | (?:不是|不|非|没有|並非|并非){OPEN}$
    """,
    re.IGNORECASE | re.VERBOSE,
)
_DENIED_AFTER = re.compile(
    rf"""
    {CLOSE}\s+(?:is|was|are|were|would\ be|seems?)\s+(?:not|wrong|incorrect|false|unlikely|ruled)\b
    | {CLOSE}\s+(?:(?:is|was|are|were|does|do|can|would)n't|(?:does|can)\s*not)\b
    | (?:的?では(?:な|あり)|じゃな|\w{{0,3}}지\s?않)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_IN_A_ROW = re.compile(rf"{CLOSE}(?:\s*(?:[,/|&、-]|\b(?:or|and|to|vs\.?|versus)\b))+{OPEN}", re.IGNORECASE)
_COMMA = re.compile(rf"{CLOSE}\s*,{OPEN}")
_ROW_ENDS = re.compile(rf"{CLOSE}\s*(?:[.?!\n]|$)")
_HEADING = re.compile(rf"{CLOSE}\s*(?::|->|→|=)")
_LISTED = re.compile(r"[*_]*[.)][*_]*[ \t]+(?!is\b|was\b)\S")
_QUESTION = re.compile(rf"{CLOSE}\s*\?")


class Mention(NamedTuple):
    """A label in a text, from `start` up to `end`."""

    label: str
    start: int
    end: int


def even(text: str) -> str:
    """Dashes, quotes, spaces and Unicode forms that look alike made equal; what labels are looked for in."""
    if text.isascii():
        return text
    text = "".join(character for character in text if unicodedata.category(character) != "Cf")  # cannot be seen
    return unicodedata.normalize("NFKC", text.translate(_TYPOGRAPHY))


class LabelFinder:
    """Finds `labels` in texts that `even` has made."""

    def __init__(self, labels: Sequence[str]):
        self._labels = list(labels)
        self._by_spelling = {_spelling(even(label)): label for label in labels}
        self._by_folding = {
            spelling.casefold(): self._by_spelling[spelling] for spelling in reversed(self._by_spelling)
        }
        longest_first = sorted(self._by_spelling, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(_mention_pattern, longest_first)))
        self.numeric = any(map(_NUMBER.fullmatch, self._by_spelling))
        """Whether a label is a number."""
        scale = [int(label) for label in self._by_spelling if label.isdecimal()]
        self._out_of = (
            re.compile(rf"(?<=\d)\s?(?:stars?\s)?(?:/|(?:out )?of)\s?{max(scale)}(?!\w)") if len(scale) > 2 else None
        )

    def find(self, text: str) -> list[Mention]:
        """The mentions in `text`, in order."""
        if self._out_of:
            text = self._out_of.sub(lambda scale: " " * len(scale.group()), text)
        found = [Mention(self._label(match.group()), *match.span()) for match in self._pattern.finditer(text)]
        options = _options(text, found) | _listed(text, found, self._labels)
        return [mention for mention in found if mention not in options and not _is_denied(text, mention)]

    def _label(self, written: str) -> str:
        spelling = _spelling(written)
        for form in (spelling, re.sub(r"\.0+$", "", spelling)):  # 1.0 is the label 1, unless there is a label 1.0
            if form in self._by_spelling:
                return self._by_spelling[form]
        return self._by_folding[form.casefold()]


def _spelling(label: str) -> str:
    """With one space where there are several, or an underscore."""
    return " ".join(label.replace("_", " ").split())


def _mention_pattern(label: str) -> str:
    pattern = whole_words(label).replace(r"\s+", r"[\s_]+")
    if _NUMBER.fullmatch(label):
        decimals = r"(?:\.0+)?" if "." not in label else ""
        before = "" if label[0] in "+-" else r"(?<!-)(?<!\bminus\s)"
        unread = rf"(?![.,:/-]?\d| \d{{3}}(?!\d)|\s?[%$€£¥]|\+|\s+out of\b|{_MAGNITUDE})"
        return rf"(?<![\d$€£¥][.,:/])(?<![$€£¥±]){before}{pattern}{decimals}{unread}"
    if len(label) == 1 and label.isalpha() and label.isascii():
        pattern = rf"(?<![.'-]){pattern}(?![+#'&])(?![.-]\w)"
    if label.lower() in _LITTLE_WORDS:
        pattern += _NO_LITTLE_WORD
    in_own_case = label.isascii() and (len(label) == 1 or (len(label) == 2 and label.isupper()))
    return pattern if in_own_case else f"(?i:{pattern})"


def _options(text: str, mentions: list[Mention]) -> set[Mention]:
    """The mentions that stand in a row with another label, that head parts of the text as other labels do, or that are
    asked about before another is named."""
    options: set[Mention] = set()
    row = mentions[:1]
    for one, other in [*pairwise(mentions), *((last, None) for last in mentions[-1:])]:
        if other and one.label != other.label and _IN_A_ROW.fullmatch(text, one.end, other.start):
            row.append(other)
            continue
        if _is_row(text, row):
            options.update(row)
        row = [other] if other else []
    headings = {mention for mention in mentions if _HEADING.match(text, mention.end)}
    if len({mention.label for mention in headings}) > 1:
        options |= headings
    questions = {mention for mention in mentions if _QUESTION.match(text, mention.end)}
    return options | questions if len(questions) < len(mentions) else options


def _listed(text: str, mentions: list[Mention], labels: list[str]) -> set[Mention]:
    """The mentions that begin a line each, in the order of `labels`: "A. Paris", "B. Rome", "C. Oslo"."""
    lines = [mention for mention in mentions if _LISTED.match(text, mention.end)]
    lines = [at for at in lines if not text[text.rfind("\n", 0, at.start) + 1 : at.start].strip(" \t*_(-")]
    in_order = [at.label for at in lines] == labels[: len(lines)]
    return set(lines) if in_order and len(lines) >= min(3, len(labels)) else set()


def _is_row(text: str, row: list[Mention]) -> bool:
    """Whether these neighbours name options. Of two with a comma between, the second may begin another clause."""
    if len(row) != 2 or not _COMMA.fullmatch(text, row[0].end, row[1].start):
        return len(row) > 1
    return not _is_denied(text, row[0]) and _ROW_ENDS.match(text, row[1].end) is not None


def _is_denied(text: str, mention: Mention) -> bool:
    before = text[max(0, mention.start - 60) : mention.start]
    return _DENIED_BEFORE.search(before) is not None or _DENIED_AFTER.match(text, mention.end) is not None
