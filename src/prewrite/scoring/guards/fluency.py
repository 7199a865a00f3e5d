"""How far a text is from a sane English instruction, by rules that need no language model.

`gibberish` is a sum of named faults. Each rule answers to a way in which policies have been seen to drift (word salad,
talk about instructions, chat roles, markup, cut-off ends) or can be expected to.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from itertools import pairwise

from prewrite.scoring.guards.english import (
    AUXILIARIES,
    DETERMINERS,
    FUNCTION_WORDS,
    IMPERATIVES,
    PREPOSITIONS,
    QUESTION_WORDS,
    is_english,
    word_set,
    words,
)

# fmt: off
_META = re.compile(
    r"\b(?:re-?writ\w*|rephras\w*|improv\w*|paraphras\w*)(?: \w+){0,3} (?:instructions?|prompts?)\b"
    r"|\b(?:new|original|rewritten|revised|initial|previous|updated|improved|following) (?:instruction|prompt)s?\b"
    r"|\b(?:descriptions?|rephrasing|requirements?) (?:of|for|in|to) (?:the |this |an? )?(?:instruction|prompt)s?\b"
    r"|\b(?:instruction|prompt)s? (?:with|via|by|for) (?:the |an? )?(?:descript|instruct|rephras|requir|prompt)"
    r"|\bvia rephrasing\b|\badding specific requirements?\b|\billustrative descriptions?\b|\bas an ai\b",
    re.IGNORECASE,
)
_META_WORD = re.compile(r"\b(?:instructions?|prompts?|rephras\w+|rewriter|requirements?)\b", re.IGNORECASE)
_CHATTER = re.compile(
    r"^\W*(?:(?:user|assistant|system|human|model|bot|ai)(?=\s*[:\n>]|\s*$)|(?:assistant|human)\b(?!['\u2019]s)"
    r"|sure\b|certainly\b|of course\b|okay\b|here (?:is|are)\b|here['\u2019]s\b|i['\u2019](?:m|d|ll|ve)\b"
    r"|i (?:am|will|can|cannot|have|would|think)\b|thank|sorry\b)",
    re.IGNORECASE,
)
# fmt: on
# From a chat model's own system prompt, which small rewriters repeat: "You are a helpful AI assistant named ..."
_WHO_I_AM = re.compile(
    r"\b(?:ai|bot|assistant|model|agent)(?:,? (?:who|that|which) is)? (?:named|called)\b|\btrained by\b", re.IGNORECASE
)
_ROLE_INSIDE = re.compile(r"(?:^|\n)\s*(?:user|assistant|system|human)\s*:", re.IGNORECASE)
_MARKUP = re.compile(r"[{}<>|\\`#*_=~^\[\]@]")
_UPPER, _LOWER = re.compile(r"[A-Z]"), re.compile(r"[a-z]")
_RUNS = re.compile(r"[,;:!?]{2,}|[,;:]\s*\.|\.{4,}|(?<!\.)\.\.(?!\.)|(?:\s[.,;:!?]){2,}|-{3,}")
_QUOTED_WORD = re.compile("[\"'\u201c\u2018](\\w[\\w /'-]{0,24})[\"'\u201d\u2019](?!\\w)")
_CLAUSES = re.compile(r"[.;:!?,\n()\u2013\u2014]+|\s-\s|\band\b|\bthen\b|\bor\b")
_TOKENS = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*|[.!?;:,\n]")
_ENUMERATOR = re.compile(r"(?:^|\s)\w{1,2}\)")
_REQUEST = re.compile(
    r"\byou(?:['\u2019]ll| should| must| need| will| have| can| are| work)\b"
    r"|\b(?:task|goal|job|aim|work) (?:is|here)\b|\b(?:should|must|needs? to|has to|have to|please)\b|[?:]\W*$|\?\s",
    re.IGNORECASE,
)
_OPENERS = PREPOSITIONS | word_set("given based using when if once while whether your after reading")
_ASKING = IMPERATIVES | QUESTION_WORDS | AUXILIARIES
_BEFORE_NOUN = DETERMINERS | PREPOSITIONS | AUXILIARIES
_ADVERBS = word_set(
    "please now next finally first second third carefully simply just always never also so kindly instead to only "
    "not lastly otherwise still together all both either"
)
_ENDS = frozenset(".!?;:,\n")
# Nothing of the right-hand set can follow the left-hand word in English prose.
_AFTER_DETERMINER = (
    word_set("of to in on at by for from with into or and but if is are was were be been has have had do does will "
              "would can could should must it this that these those which what whether than as")
    | DETERMINERS - {"every"}
)  # fmt: skip
_AFTER = {
    "of": word_set("of as or and is are by to at be if into was were has have do does"),
    "into": word_set("of as or and is are by to at be if into with from"),
    "from": word_set("of as or and if into from be"),
    "for": word_set("of or if for into be"),
    "with": word_set("of as if with into by be"),
    "as": word_set("of or and are as into be"),
    "or": word_set("or and of are"),
    "and": word_set("and of"),
    "to": word_set("of to or into if"),
    "in": word_set("of in is are be"),
    "on": word_set("of on is are be"),
    "by": word_set("of by is are be"),
    "at": word_set("of in at and or by if are be"),
    "if": word_set("of or and if is are to with by as"),
    "whether": word_set("of and is are as with whether if"),
    "which": word_set("as which what if be than"),
    "what": word_set("as what which if be than"),
    "how": word_set("of as how if be"),
    "this": word_set("a an the this these your its"),
    "these": word_set("a an the this these is your its"),
    "does": word_set("of in on by from is are does"),
    "be": word_set("of or and is are be to"),
    "one": word_set("the this your what"),
    "each": word_set("a an the this these your each are to"),
    "both": word_set("is or what which each"),
    "only": word_set("of"),
    "then": word_set("of or than be"),
    "it": word_set("it this your an one which"),
    "you": word_set("you of or is be this"),
    "than": word_set("of or and than is"),
    "is": word_set("is are be of"),
    "are": word_set("is are be of"),
}
_STOPS = frozenset(".!?")
_NEVER_FIRST = word_set("or than into them else")
_NEVER_LAST = word_set("or and than if whether because into every either when while")
_BEFORE_LETTER = frozenset(["letter", "character", "with", "or", ","])
_MARKS = frozenset("-\u2013\u2014&+%$/.,;:!?()\"'\u2019\u201c\u201d\u2018\u2026")
_DANGLING = word_set("of as into than and or the a an if whether from because every your is are")


def gibberish(text: str, instruction: str, labels: Collection[str] = ()) -> float:
    """How far `text` is from a sane English instruction: the sum of its `faults`, at most 1; empty text is 1."""
    if not text.strip():
        return 1.0
    return min(1.0, sum(faults(text, instruction, labels).values()))


def faults(text: str, instruction: str, labels: Collection[str] = ()) -> dict[str, float]:
    """The faults that `text` has, by name, each in (0, 1]. What `instruction` has itself is no fault.

    Where `instruction` is not English, only `order`, `markup`, `runs`, `balance` and `shouting` are looked for.

    - `words`: share of tokens that do not look like words, times 2.
    - `grammar`: 0.25 for each pair of neighbours that English does not allow ("the of", "a or.").
    - `order`: a text made of the instruction's own words that keeps under half of its word pairs: 1 - 2 * kept share.
    - `function_words`: in texts of 8 words and more, under 15% or over 80% function words.
    - `request`: 0.5 where nothing asks for anything: no imperative, question, "you should", "the task is".
    - `meta`: 1 for talk about rewriting instructions, 0.3 for the bare word "instruction" or "prompt".
    - `chatter`: 0.6 for a chat role or a reply ("Sure", "I am") at the start, a role line inside, or a model that
      introduces itself ("You are an AI assistant named ...").
    - `markup`: 0.15 for each character of code or markup. `runs`: 0.3 for each run of punctuation such as ",,".
    - `balance`: 0.25 for brackets or double quotes that do not pair. `shouting`: 0.3 for mostly capitals.
    - `cut_off`: 0.4 for an end such as "or the"; 0.1 for no end mark where the instruction has one.
    """
    names = _RULES if is_english(instruction) else _ANY_LANGUAGE
    found = {name: _RULES[name](text, instruction, labels) for name in names}
    return {name: min(1.0, value) for name, value in found.items() if value > 0}


def _words(text: str, instruction: str, labels: Collection[str]) -> float:
    parts = [part for token in text.split() for part in words(token) or (token,)]
    odd = [part for part in parts if not _word_like(part)]
    if not odd:
        return 0.0
    known = set(words(instruction)).union(instruction.split(), *map(words, labels))
    return 2 * sum(part not in known for part in odd) / len(parts)


@lru_cache(maxsize=8192)
def _word_like(word: str) -> bool:
    """Whether a lower-case word, number or mark could stand in English prose."""
    if not any(map(str.isalnum, word)):
        return all(character in _MARKS for character in word)
    if any(map(str.isdigit, word)):
        return re.fullmatch(r"\d+(?:st|nd|rd|th|[-/]\d+|-\w+)?", word) is not None
    if any(ord(character) > 0x24F and character != "\u2019" for character in word):
        return False  # beyond Latin letters
    longest = max(word.replace("'", "-").split("-"), key=len)
    if len(longest) > 18 or re.search(r"(.)\1\1|[bcdfghjklmnpqrstvwxz]{6}", longest):
        return False
    return len(longest) <= 3 or re.search(r"[aeiouy\u00c0-\u024f]", longest) is not None


def _grammar(text: str, instruction: str, labels: Collection[str]) -> float:
    return 0.25 * max(0, _bad_pairs(text) - _bad_pairs(instruction))


@lru_cache(maxsize=1024)
def _bad_pairs(text: str) -> int:
    """Neighbours that cannot be: two words, a word and the stop after it, or a stop and the word after it."""
    tokens = _prose(text)
    bad = int(bool(tokens) and tokens[0] in _NEVER_FIRST)
    for at, (left, right) in enumerate(pairwise([*tokens, "."])):
        if left in DETERMINERS:
            letter = left == "a" and at > 0 and tokens[at - 1] in _BEFORE_LETTER
            bad += (right in _AFTER_DETERMINER or right in _ENDS) and not letter
        elif left in _STOPS:
            bad += right in _NEVER_FIRST
        elif right in _STOPS:
            bad += left in _NEVER_LAST
        else:
            bad += right in _AFTER.get(left, ()) or (left == right and left.isalpha() and left != "that")
    return bad


def _prose(text: str) -> list[str]:
    """Tokens and stops in lower case; a quoted word and a lone capital letter are names, here "x"."""
    tokens = _TOKENS.findall(_QUOTED_WORD.sub(" x ", text))
    return ["x" if len(t) == 1 and t.isupper() and i and tokens[i - 1] not in _STOPS else t.lower()
            for i, t in enumerate(tokens)]  # fmt: skip


def _order(text: str, instruction: str, labels: Collection[str]) -> float:
    names = {word for label in labels for word in words(label)}  # labels may come in any order
    ours = [word for word in words(text) if word not in names]
    theirs = [word for word in words(instruction) if word not in names]
    if len(ours) < 6 or len(set(ours) - set(theirs)) > 0.2 * len(ours):
        return 0.0
    if (Counter(ours) & Counter(theirs)).total() < 0.8 * len(ours):
        return 0.0
    pairs = Counter(pairwise(ours))
    kept = (pairs & Counter(pairwise(theirs))).total() / pairs.total()
    return max(0.0, 1 - 2 * kept)


def _function_words(text: str, instruction: str, labels: Collection[str]) -> float:
    names = {word for label in labels for word in words(label)}
    ours = [word for word in words(text) if word not in names and not word.isdigit()]
    if len(ours) < 8:
        return 0.0
    share = sum(word in FUNCTION_WORDS for word in ours) / len(ours)
    return max(0.0, (0.15 - share) / 0.15, (share - 0.8) / 0.2)


def _request(text: str, instruction: str, labels: Collection[str]) -> float:
    return 0.5 if _requests(instruction) and not _requests(text) else 0.0


@lru_cache(maxsize=1024)
def _requests(text: str) -> bool:
    return any(_asks(words(clause)) for clause in _CLAUSES.split(text)) or bool(_REQUEST.search(text))


def _asks(clause: Sequence[str]) -> bool:
    """Whether a clause begins with an imperative or question, or has one after an opening phrase ("For each word")."""
    at = 0
    while at < len(clause) and clause[at] not in IMPERATIVES and (clause[at] in _ADVERBS or clause[at].endswith("ly")):
        at += 1
    if at == len(clause):
        return False
    if clause[at] in _ASKING:
        return True
    return clause[at] in _OPENERS and any(
        word in IMPERATIVES and before not in _BEFORE_NOUN
        for before, word in zip(clause[at + 1 :], clause[at + 2 :], strict=False)
    )


def _meta(text: str, instruction: str, labels: Collection[str]) -> float:
    if _META.search(text) and not _META.search(instruction):
        return 1.0
    own = {word.lower() for word in _META_WORD.findall(instruction)}
    return 0.3 * sum(word.lower() not in own for word in _META_WORD.findall(text))


def _chatter(text: str, instruction: str, labels: Collection[str]) -> float:
    if _CHATTER.search(instruction):
        return 0.0
    introduced = _WHO_I_AM.search(text) and not _WHO_I_AM.search(instruction)
    return 0.6 if _CHATTER.search(text) or _ROLE_INSIDE.search(text) or introduced else 0.0


def _markup(text: str, instruction: str, labels: Collection[str]) -> float:
    marks = _MARKUP.findall(text)
    return 0.15 * sum(mark not in instruction and not any(mark in label for label in labels) for mark in marks)


def _runs(text: str, instruction: str, labels: Collection[str]) -> float:
    return 0.3 * max(0, len(_RUNS.findall(text)) - len(_RUNS.findall(instruction)))


def _balance(text: str, instruction: str, labels: Collection[str]) -> float:
    return 0.25 if _unbalanced(text) and not _unbalanced(instruction) else 0.0


def _unbalanced(text: str) -> bool:
    plain = _ENUMERATOR.sub(" ", text)
    pairs = (("(", ")"), ("[", "]"), ("\u201c", "\u201d"))
    return plain.count('"') % 2 == 1 or any(plain.count(left) != plain.count(right) for left, right in pairs)


def _shouting(text: str, instruction: str, labels: Collection[str]) -> float:
    return 0.3 if _capitals(text) and not _capitals(instruction) else 0.0


def _capitals(text: str) -> bool:
    upper, lower = len(_UPPER.findall(text)), len(_LOWER.findall(text))
    return upper > lower and upper >= 8


def _cut_off(text: str, instruction: str, labels: Collection[str]) -> float:
    end = text.rstrip()
    last = words(end)[-1:]
    if end[-1] not in ".:?!" and last and last[0] in _DANGLING and not end.endswith(tuple("\"'\u2019\u201d)")):
        return 0.4
    return 0.0 if _ended(end) or not _ended(instruction.rstrip()) else 0.1


def _ended(text: str) -> bool:
    """Whether a text ends with an end mark, a closing quote or bracket, or an item of a list in lines."""
    item = re.match(r"\s*(?:[-*\u2022]|\w{1,2}[.)])\s", text.rsplit("\n", 1)[-1])
    return text.endswith(tuple(".:?!\"'\u2019\u201d)]")) or bool(item)


_RULES: dict[str, Callable[[str, str, Collection[str]], float]] = {
    "words": _words,
    "grammar": _grammar,
    "order": _order,
    "function_words": _function_words,
    "request": _request,
    "meta": _meta,
    "chatter": _chatter,
    "markup": _markup,
    "runs": _runs,
    "balance": _balance,
    "shouting": _shouting,
    "cut_off": _cut_off,
}
_ANY_LANGUAGE = ("order", "markup", "runs", "balance", "shouting")
