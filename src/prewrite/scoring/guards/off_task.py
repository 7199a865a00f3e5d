"""Whether a rewrite for a labelling task still asks for a label.

Where answers are read by likelihood, any text that makes the right label likelier earns a reward, whether or not it
asks for one: "Write the news article in a single sentence." has scored as well as an honest instruction. `off_task`
knows the ways out of the task that policies have been seen to take, most of them in English only.
"""

from __future__ import annotations

import re
from functools import lru_cache

from prewrite.scoring.guards.context import GuardContext
from prewrite.scoring.guards.english import FUNCTION_WORDS, content_words, is_english, stem, word_set, words
from prewrite.text import mention

_NOUN = (
    r"(?:articles?|stor(?:y|ies)|reviews?|sentences?|statements?|passages?|paragraphs?|texts?|messages?|comments?"
    r"|reports?|tickets?|e-?mails?|posts?|tweets?|documents?|questions?|problems?|headlines?|news)"
)
"""What a task gives to read. It is off the task to ask for such a thing only where the task gives it."""
_WORK = (
    r"(?:poems?|essays?|letters?|songs?|speech(?:es)?|scripts?|dialogues?|blogs?|novels?|articles?|stor(?:y|ies)"
    r"|titles?|headlines?|summar(?:y|ies))"
)
"""What no label is, whatever the task gives."""
_HEAD = (
    rf"(?![\w'\u2019-])(?! (?:{_NOUN}|categor|class|label|type|kind|topic|subject|theme|section|sentiment|mood|tone"
    r"|feeling|field|area|genre|group|polarity|stance|intent|emotion))"
)
"""The noun ends here: "the article" and not "the article's topic" or "the article category"."""
_MODIFIERS = (
    r"(?:(?:a|an|the|this|that|each|every|one|your|its|another|any|only|just|or|new|short|brief|single|simple|whole|full"
    r"|news|[a-z]+(?:ed|al|ive)) )*"
)

_WRITE = re.compile(
    r"(?<!not )(?<!n't )(?<!n\u2019t )(?<!never )(?<!without )\b"
    r"(?:write|rewrite|compose|create|generate|draft|invent|rephrase|paraphrase|translate|edit|continue|improve)"
    rf"(?: down| out| up| me| us)? {_MODIFIERS}(?P<noun>{_NOUN}|{_WORK}){_HEAD}"
)
_WHICH = re.compile(rf"\b(?:which|what) {_MODIFIERS}(?P<noun>{_NOUN}){_HEAD}(?:(?!,? (?:and|but|then)\b)[^.?!;:\n])*")
_ASKING = word_set(
    "classify categorize categorise classification label tag decide determine identify detect judge assess choose "
    "choice select pick sort assign predict recognize recognise indicate mark rate distinguish category class type "
    "kind topic subject theme section field area genre sentiment opinion feeling mood tone attitude about whether "
    "option"
)
"""Words that ask for a label of any kind."""
_EXAMPLES = re.compile(r"\b(?:such as|e\.g\.|for example|for instance|like)\b")
_TELLING = word_set("give tell say write state answer name read output return respond find report show describe make")
"""Words that ask for something and do not say for what."""


def off_task(rewrite: str, context: GuardContext) -> float:
    """1 where the task is to name a label and the rewrite asks for something else that the instruction does not.

    - It asks for a text: "write the news article in one of the categories", "compose a poem".
    - It holds no label, no word that asks for one, and no word of the instruction's own beside the input's name.
      To ask which of the inputs, of which there is one, does not count: "which news article is the best?"
    - It lists some labels of those that the instruction names, and leaves others out; in any language.
    """
    labels = context.choices
    if not labels:
        return 0.0
    text, own = _plain(rewrite), _plain(context.instruction)
    rules = [_leaves_labels_out]
    if is_english(context.instruction):
        rules += [_asks_for_a_text, _asks_for_no_label]
    return float(any(rule(text, own, labels) and not rule(own, own, labels) for rule in rules))


def _asks_for_a_text(text: str, own: str, labels: tuple[str, ...]) -> bool:
    given = {stem(word) for word in words(own)}
    found = [match["noun"] for match in _WRITE.finditer(text)]
    return any(stem(noun) in given or re.fullmatch(_WORK, noun) for noun in found)


def _asks_for_no_label(text: str, own: str, labels: tuple[str, ...]) -> bool:
    rest = text if _WHICH.search(own) else _WHICH.sub(" ", text)
    return _asking(own, labels).isdisjoint(map(stem, words(rest)))


def _leaves_labels_out(text: str, own: str, labels: tuple[str, ...]) -> bool:
    named = [label for label in labels if mention(label).search(own)]
    kept = sum(mention(label).search(text) is not None for label in named)
    return 2 <= kept < len(named) and not _EXAMPLES.search(text)


@lru_cache(maxsize=256)
def _asking(instruction: str, labels: tuple[str, ...]) -> frozenset[str]:
    """The stems of words that ask for a label."""
    own = {word for word in content_words(instruction) if word not in _TELLING and not re.fullmatch(_NOUN, word)}
    named = {word for label in labels for word in words(label)} - FUNCTION_WORDS
    return frozenset(stem(word) for word in own | named | _ASKING)


def _plain(text: str) -> str:
    """Lower case, one space between words."""
    return " ".join(text.lower().split())
