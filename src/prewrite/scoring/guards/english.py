"""Small word lists of instruction English, a light stemmer, and groups of words that mean the same in an instruction.

Made for guards that run thousands of times per update: no model, no download, microseconds per text. The lists are
ours and short on purpose; a word that is missing costs a rewrite a small penalty at most.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache


def word_set(text: str) -> frozenset[str]:
    """The words of a list that is written as one string."""
    return frozenset(text.split())


_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")

DETERMINERS = word_set("a an the your its every my our their")
PREPOSITIONS = word_set(
    "about after against among as at before between by during for from in into like of on onto over per than "
    "through to under via with within without"
)
AUXILIARIES = word_set(
    "is are was were be been being am has have had do does did will would can could should shall may might must"
)
QUESTION_WORDS = word_set("what which who whose whom how why where when whether")
_FRAME_WORDS = (
    "above again all also and another any based because below both but down each either exactly few following "
    "given he her here him i if it just least less many me more most much neither new no nor not off once one "
    "ones only or other out own please same she since so some such that them then there these they this those too "
    "unless until up us use used using very way we well while whole you"
)
FUNCTION_WORDS = DETERMINERS | PREPOSITIONS | AUXILIARIES | QUESTION_WORDS | word_set(_FRAME_WORDS)

IMPERATIVES = word_set(
    "act add analyse analyze answer apply appraise arrange ascertain ask assess assign assume avoid base be begin "
    "boil break calculate call capitalise capitalize carry categorise categorize change check choose classify "
    "clean combine compare complete compose compute conclude condense confirm consider construct convert copy "
    "correct count create cut decide deduce define delete deliver derive describe detect determine differentiate "
    "direct discern distinguish divide do don't draft drop edit end enter estimate evaluate examine expand "
    "explain express extract figure file fill find finish fix flag focus follow form format forward gauge "
    "generate get give go grade group guess handle have help highlight identify ignore imagine implement indicate "
    "infer insert interpret isolate join judge keep label leave let let's limit list listen locate look make map "
    "mark match measure multiply name negate note observe offer open order output paraphrase pay perform phrase "
    "pick picture place pluralise pluralize point predict present print produce provide pull put quote rank rate "
    "read reason recall recognise recognize refer remember remove render reorder repeat rephrase replace reply "
    "report respond restate return reverse review rewrite round route run say scan score search see select send "
    "separate set shelve shorten show simplify skim solve sort specify spell split start state strip study "
    "substitute subtract suggest sum summarise summarize supply suppose swap tag take tally tell think total "
    "transform translate treat triage trim try turn type underline understand use verify weigh work write"
)

ENGLISH_SHARE = 0.15
"""Share of function words and imperatives from which a text passes for English. Instructions of the warm-start corpus
have more; those of most other languages have next to none, but Dutch shares "of", "is" and "in" with English."""
SHORT = 4
"""Words below which a single word of the lists is evidence enough."""

# One group a line, indented where it goes on; a word may stand in several. See `meanings`.
_GROUPS = """
classify categorize categorise decide determine identify label assign judge tell detect choose pick select
    sort group figure state rate assess predict recognize recognise indicate belong route evaluate name say mark
    tag put place file grade score guess class category answer reply call type kind distinguish fit deserve
    describe
sentiment feeling feel felt emotion tone opinion attitude mood view impression liked like enjoy
review article story sentence statement passage text message paragraph comment critique document report
    headline ticket email post tweet input piece excerpt snippet line phrase feedback writer author reviewer
    reader note content
movie film cinema watch
news newspaper journalism press journalist editor story
problem question exercise task puzzle query riddle ask
solve calculate compute work find figure determine evaluate estimate answer result how
answer solution result response reply respond output solve say give write
math maths mathematical mathematics arithmetic
number numeral numeric digit figure value integer amount many much numerical
sum add addition total plus together
subtract subtraction difference minus deduct away less left
multiply product times multiplication
divide quotient division share
average mean
word term vocabulary expression name noun
write give provide output produce print return type answer make state spell say put supply offer reply what
    which
rewrite convert change turn transform rephrase restate paraphrase make express put form write edit
negate negative negation opposite not contradict deny denied reverse false untrue
plural multiple many several more
passive active voice
translate translation translated render convert express equivalent say
rhyme rhyming sound sounds poet poem
synonym similar same meaning mean means alternative equivalent replace
first initial beginning begin begins start starts opening
last final end ends ending
character letter
space spaced spacing separate blank apart gap
similar similarity paraphrase same meaning alike close
topic subject theme section area about desk
summarize summarise summary condense shorten short brief gist boil main
extract find list pull name locate identify copy pick
sort order arrange rank alphabetical alphabetically
fix correct error mistake grammar
polite politely courteous friendly rude
customer client user buyer guest caller
true false correct fact claim
country nation state
capital city
"""

_SUFFIX = re.compile(r"(?:ings?|ied|ies|ers?|ed|es|s|e|y|ly)$")


@lru_cache(maxsize=2048)
def words(text: str) -> tuple[str, ...]:
    """The words of `text` in lower case; hyphens and apostrophes inside a word belong to it."""
    return tuple(_WORD.findall(text.lower()))


@lru_cache(maxsize=8192)
def stem(word: str) -> str:
    """A crude stem: one suffix off, then six letters. "classification" and "classify" both give "classi"."""
    word = word.lower().replace("\u2019", "'").removesuffix("'s")
    if len(word) > 4 and not word.endswith("ss"):
        shorter = _SUFFIX.sub("", word)
        word = shorter if len(shorter) >= 3 else word
    return word[:6]


@lru_cache(maxsize=1)
def _groups() -> dict[str, frozenset[int]]:
    """Stem -> numbers of the groups that hold it."""
    members: dict[str, set[int]] = {}
    for number, line in enumerate(re.split(r"\n(?! )", _GROUPS.strip())):
        for word in line.split():
            members.setdefault(stem(word), set()).add(number)
    return {word: frozenset(numbers) for word, numbers in members.items()}


@lru_cache(maxsize=8192)
def meanings(word: str) -> frozenset[str | int]:
    """What `word` can be matched by: its stem and the numbers of its groups. Two words match if these share one."""
    base = stem(word)
    return frozenset({base}) | _groups().get(base, frozenset())


@lru_cache(maxsize=1024)
def is_english(text: str) -> bool:
    """Whether rules about English say anything about `text`."""
    tokens = words(text)
    known = sum(word in FUNCTION_WORDS or word in IMPERATIVES for word in tokens)
    if len(tokens) < SHORT:
        return known > 0 or any(stem(word) in _groups() for word in tokens)
    return known >= ENGLISH_SHARE * len(tokens)


def content_words(text: str) -> list[str]:
    """The words of `text` that are not function words, in order."""
    return [word for word in words(text) if word not in FUNCTION_WORDS]


def word_runs(tokens: Sequence[str], size: int) -> Iterable[str]:
    """All runs of `size` words, each as one text."""
    return (" ".join(tokens[start : start + size]) for start in range(len(tokens) - size + 1))
