"""Named penalties that keep a rewrite readable and on task while training raises its reward.

A guard is a function `(rewrite, context) -> violation` in [0, 1]: 0 is fine, 1 is as bad as can be. A copy of the
initial instruction is always fine. All guards are deterministic and need no model. None of them proves that a rewrite
is good: they close the holes through which a policy leaves the task, and the report shows which ones fired.

Most rules of `drift`, `request` and `gibberish` are about English, and are off where the instruction is in another
language (`english.is_english`); the other guards and the fidelity score hold in any.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from prewrite.errors import ConfigError
from prewrite.scoring.guards.english import FUNCTION_WORDS, content_words, is_english, meanings, word_set, words
from prewrite.scoring.guards.fluency import gibberish as _gibberish
from prewrite.scoring.guards.off_task import off_task
from prewrite.text import mention, spaced

MIN_WORDS = 3
MAX_WORDS = 60
"""A rewrite may have this many words, or three times those of the instruction, whichever is more."""
COPY_WORDS = 8
"""So many words in a row that stand in a forbidden text are a copy."""
SHORT_COPY_WORDS = 5
"""A forbidden text of fewer than `COPY_WORDS` but at least so many words counts when it is copied whole."""


@dataclass(frozen=True)
class GuardContext:
    """What a rewrite is held against; build it once per instruction, since it keeps what it has computed."""

    instruction: str
    """The initial instruction."""
    choices: tuple[str, ...] = ()
    """The labels; those that the instruction names must be kept."""
    keep: tuple[str, ...] = ()
    """Words or phrases that must be kept whether the instruction names them or not."""
    forbidden_texts: Sequence[str] = ()
    """Training inputs and gold answers that a rewrite must not copy."""

    @cached_property
    def protected(self) -> tuple[re.Pattern[str], ...]:
        """One pattern per word, phrase or label that a rewrite must hold."""
        named = [label for label in self.choices if mention(label).search(self.instruction)]
        return tuple(mention(text) for text in dict.fromkeys([*self.keep, *named]))

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels, single characters left out: "a" in a text is rarely the answer A."""
        return tuple(label for label in self.choices if len(label.strip()) > 1)

    @cached_property
    def content(self) -> tuple[frozenset[str | int], ...]:
        """What each content word of the instruction can be matched by; labels are the business of `keep_words`."""
        names = {word for label in self.choices for word in words(label)}
        own = [word for word in content_words(self.instruction) if word not in names]
        return tuple(meanings(word) for word in dict.fromkeys(own))

    @cached_property
    def task_verb(self) -> frozenset[str | int]:
        """What the first content word of the instruction can be matched by."""
        return self.content[0] if self.content else frozenset()

    @cached_property
    def forbidden(self) -> frozenset[str]:
        """Every run of `COPY_WORDS` words of the forbidden texts, and short texts whole; no run of the instruction."""
        runs: set[str] = set()
        for text in self.forbidden_texts:
            tokens = words(text)
            size = min(COPY_WORDS, len(tokens))
            if size >= SHORT_COPY_WORDS:
                runs.update(_runs(tokens, size))
        own = words(self.instruction)
        for size in range(SHORT_COPY_WORDS, COPY_WORDS + 1):
            runs.difference_update(_runs(own, size))
        return frozenset(runs)


Guard = Callable[[str, GuardContext], float]


def keep_words(rewrite: str, context: GuardContext) -> float:
    """Share of protected words and labels that the rewrite does not hold as whole words, in any case."""
    missing = sum(not pattern.search(rewrite) for pattern in context.protected)
    return missing / len(context.protected) if missing else 0.0


def length(rewrite: str, context: GuardContext) -> float:
    """Too short: (3 - words) / 3. Too long: the share by which it passes the limit, 1 at twice the limit.

    The limit is max(60, 3 * words of the instruction); 12 characters count as a word at least, so that glueing words
    together does not help. An instruction of one or two words may be matched in brevity.
    """
    own = len(words(context.instruction))
    count = len(words(rewrite))
    least = max(1, min(MIN_WORDS, own))
    limit = max(MAX_WORDS, 3 * own)
    too_short = (least - count) / least
    too_long = max(count, len(rewrite) / 12) / limit - 1
    return min(1.0, max(0.0, too_short, too_long))


_STUTTER = re.compile(
    r"\b([^\W\d_]{3,})\b(?:[\s,;.!\"'-]+(?:and|or|of|the|a|an|to|with|in|for|as)\b){0,3}[\s,;.!\"'-]+\1\b", re.I
)
_STUTTER_ALLOWED = word_set("step word letter line more over again less one sentence digit that number item")
_LISTS = re.compile(r"[.;:!?\n()]+")
_ITEMS = re.compile(r"[,/]|\bor\b|\band\b|\bversus\b|\bvs\b")


def repetition(rewrite: str, context: GuardContext) -> float:
    """Degenerate repetition: the worst of four measures, each beyond what the instruction itself repeats.

    - Three-word runs that were there before: (share - 0.2) / 0.3.
    - A word again right after itself ("description and description"): 0.5 each.
    - An item twice in one list ("positive, negative, positive"): 0.5 each.
    - One content word more than max(4, words / 10) times, a label more than 3 times: 0.34 for each time too many.
    """
    ours, own = words(rewrite), words(context.instruction)
    if len(ours) < 2:
        return 0.0
    repeated = _repeated_share(ours) - max(0.2, _repeated_share(own))
    stutters = _stutters(rewrite) - _stutters(context.instruction)
    doubles = _double_items(rewrite) - _double_items(context.instruction)
    usual = Counter(own)
    allowed = max(4, len(ours) // 10)
    names = {word for label in context.labels for word in words(label)}
    counts = Counter(word for word in ours if word not in FUNCTION_WORDS)
    excess = sum(
        max(0, count - max(3 if word in names else allowed, usual[word] + 1)) for word, count in counts.items()
    )
    return min(1.0, max(0.0, repeated / 0.3, 0.5 * stutters, 0.5 * doubles, 0.34 * excess))


@lru_cache(maxsize=1024)
def _repeated_share(tokens: tuple[str, ...]) -> float:
    runs = list(_runs(tokens, 3))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


@lru_cache(maxsize=1024)
def _stutters(text: str) -> int:
    return sum(match[1].lower() not in _STUTTER_ALLOWED for match in _STUTTER.finditer(text))


@lru_cache(maxsize=1024)
def _double_items(text: str) -> int:
    """Items that come twice in one list; the first and the last item count by the word next to the list."""
    doubles = 0
    for part in _LISTS.split(text.lower()):
        items = [words(item) for item in _ITEMS.split(part)]
        items = [item for item in items if item]
        if len(items) < 3:
            continue
        # The first item keeps its last word and the last one its first word: "classify as [x], y or [z] only".
        names = [items[0][-1], *(" ".join(item) for item in items[1:-1]), items[-1][0]]
        counts = Counter(name for name in names if name not in FUNCTION_WORDS)
        doubles += sum(count - 1 for count in counts.values())
    return doubles


_WORKED_EXAMPLE = re.compile(r"\binput\s*:.{0,400}?\b(?:output|answer|label)\s*:\s*\S", re.IGNORECASE | re.DOTALL)
# One label named where several were asked for. "or", "if", or another label beside it make it a choice again.
_ALWAYS = (
    r"(?:\b(?:always|only ever|every time|invariably|in all cases|no matter what|regardless)\b"
    r"(?:(?!\b(?:or|if|when)\b)[^.;\n]){{0,40}}?"
    r"|\b(?:just|simply|only)\s+(?:answer|say|write|respond|reply|output|return|choose|print)\w*(?:\s+with)?\s+"
    r"|(?<!if )(?<!whether )\bthe (?:correct |right |final )?(?:answer|output|label|response) "
    r"(?:is|must be|should be|will be) (?:always )?)"
    r"[\"'\u201c]?(?:{labels})(?!\w)(?!\W{{0,3}}(?:and |or )?(?:{labels}))(?![^.;?!\n]{{0,60}}\b(?:or|if|when)\b)"
)


def leakage(rewrite: str, context: GuardContext) -> float:
    """Copies of training texts, worked examples, and answers given away: the worst of three.

    - 0.5 + half the share of the rewrite's words that lie in a run of 8 words (or in a whole text of 5 to 7) which
      also stands in a forbidden text and not in the instruction.
    - 0.5 for an "Input: ... Output: ..." pair, which would pass for the task template's own.
    - 1 for one label named as the answer to everything ("always answer positive").
    """
    worst = 0.0
    if context.forbidden:
        tokens = words(rewrite)
        copied: set[int] = set()
        for size in range(SHORT_COPY_WORDS, COPY_WORDS + 1):
            for start, run in enumerate(_runs(tokens, size)):
                if run in context.forbidden:
                    copied.update(range(start, start + size))
        worst = 0.5 + 0.5 * len(copied) / len(tokens) if copied else 0.0
    if _WORKED_EXAMPLE.search(rewrite) and not _WORKED_EXAMPLE.search(context.instruction):
        worst = max(worst, 0.5)
    if context.labels:
        given_away = _given_away(context.labels)
        if given_away.search(rewrite) and not given_away.search(context.instruction):
            worst = 1.0
    return worst


_NEGATED = re.compile(
    r"\b(?:do not|don['\u2019]t|never|must not|should not|cannot|avoid|refuse to|without) (\w+)", re.I
)
_DISMISSED = re.compile(
    r"\b(?:ignore|disregard|skip|forget)(?: about)?(?: \w+){0,2} "
    r"(?:review|article|sentence|text|input|question|problem|word|message|task|instruction)s?\s*(?:[.,;:!]|and\b|$)",
    re.IGNORECASE,
)
_ASKING_WORDS = frozenset(["what", "which", "how", "many", "much"])  # function words that can stand for a task verb
ENOUGH = 0.5
"""Share of the instruction's content words that a rewrite must cover."""


def drift(rewrite: str, context: GuardContext) -> float:
    """The instruction's meaning lost: (0.5 - recall) / 0.5, where recall is the share of its content words covered.

    A content word is covered by a word of the same stem or of the same group in `english`; the labels that
    the instruction names count as one content word, covered if all are kept. On top: 0.5 if the task verb appears only
    negated ("do not classify"), 1 if the input is dismissed ("ignore the review").
    """
    if not context.content or not is_english(context.instruction):
        return 0.0
    text = content_words(rewrite) + [word for word in words(rewrite) if word in _ASKING_WORDS]
    covered: set[str | int] = set().union(*map(meanings, text))
    hits = [not wanted.isdisjoint(covered) for wanted in context.content]
    if context.protected:
        hits.append(keep_words(rewrite, context) == 0)
    lost = max(0.0, (ENOUGH - sum(hits) / len(hits)) / ENOUGH)
    if _DISMISSED.search(rewrite) and not _DISMISSED.search(context.instruction):
        return 1.0
    negated = [word.lower() for word in _NEGATED.findall(rewrite)]
    if any(not meanings(word).isdisjoint(context.task_verb) for word in negated) and not _NEGATED.search(
        context.instruction
    ):
        free = Counter(text) - Counter(negated)
        lost += 0.5 * all(meanings(word).isdisjoint(context.task_verb) for word in free)
    return min(1.0, lost)


def request(rewrite: str, context: GuardContext) -> float:
    """1 where the task is to name a label and the rewrite asks for something else; see `off_task`."""
    return float(bool(context.choices) and off_task(rewrite, context.instruction, context.choices))


def gibberish(rewrite: str, context: GuardContext) -> float:
    """Not a sane English instruction; see `fluency.faults` for what counts and how much."""
    return _gibberish(rewrite, context.instruction, context.choices)


GUARDS: dict[str, Guard] = {
    "keep_words": keep_words,
    "length": length,
    "repetition": repetition,
    "leakage": leakage,
    "drift": drift,
    "request": request,
    "gibberish": gibberish,
}
DEFAULT_GUARDS: tuple[str, ...] = tuple(GUARDS)


def language_note(instruction: str) -> str | None:
    """What users of an instruction in another language than English must know about the guards; else None."""
    if is_english(instruction):
        return None
    return (
        f"{instruction!r} is not English: most rules of the guards drift, request and gibberish are off for it; the "
        "other guards and fidelity hold"
    )


def check_guards(rewrite: str, context: GuardContext, names: Iterable[str] = DEFAULT_GUARDS) -> dict[str, float]:
    """Name -> violation in (0, 1] of the guards that fire. Raises `ConfigError` for a name that does not exist."""
    violations = {}
    for name in names:
        if name not in GUARDS:
            raise ConfigError(f"guard {name!r} is unknown; choose from {', '.join(GUARDS)}")
        violations[name] = GUARDS[name](rewrite, context)
    return {name: value for name, value in violations.items() if value > 0}


def _runs(tokens: Sequence[str], size: int) -> Iterable[str]:
    return (" ".join(tokens[start : start + size]) for start in range(len(tokens) - size + 1))


@lru_cache(maxsize=256)
def _given_away(labels: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(_ALWAYS.format(labels="|".join(map(spaced, labels))), re.IGNORECASE)
