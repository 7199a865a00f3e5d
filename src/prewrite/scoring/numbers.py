"""Numbers as people and models write them: where they stand in a text, and what they are worth.

Two numbers are equal if their values are, whatever their spelling. The rules:

| written | read as |
|---|---|
| `1,080` `1 080` `1'080` `1_080` `1,00,000` | digits in groups; any space (plain, thin, no-break) before three |
| `1.234,50` `1.234.567` `12,5` `0,125` | dots may group and a comma be the decimal mark where nothing else fits |
| `1.234` `1,234` | what fits both ways is read as in English: a decimal dot, a grouping comma |
| `-5` `–5` `−5` `-$5` `$-5` `negative 5` `= - 5` | negative, where nothing is taken off: `10-5` ends in 5 |
| `$1.2 million` `$1.2M` `5k` | magnitude words count; short ones behind a currency sign only, but for k |
| `1e3` `10^{-3}` `10**6` `10⁻³` `1.5 × 10^3` | powers have a value; the exponent of a unit (`m^2`) is no number |
| `3/4` `\\frac{3}{4}` `½` `2 1/2` `2\\frac{1}{2}` | a quotient; a proper fraction behind a number is added to it |
| `\\sqrt{16}` `2√3` `√2/2` `2π` | roots and multiples of π have a value |
| `50%` `50 percent` | 50, not 0.5: as gold answers to "what percentage" are |
| `5 km` `5th` `$5` `90°` | units, currencies and ordinal endings are not read |
| `12:30` `3:2` `12/25/2020` `2020-12-25` `1.2.3` | times, ratios, dates and versions are compared part by part |

Number words (`five`) are not read, and a digit glued behind a letter (`H2O`, `x_2`) is no number.
"""

from __future__ import annotations

import math
import re
import unicodedata

Value = int | float | tuple[int | float, ...]
"""A number, or the parts of a time, ratio, date or version. NaN for a division by zero."""


# Of the alternatives, the first that fits is taken, so those that could be read as several numbers come first.
_DIGITS = r"""(?:
    [1-9]\d{0,2}(?:\.\d{3})+,\d+ | [1-9]\d{0,2}(?:\.\d{3}){2,}(?![.\d])                      # 1.234,50 and 1.234.567
  | [1-9]\d{0,2}(?:,\d{3})+(?!\d)(?:\.\d+)? | [1-9]\d?(?:,\d{2})+,\d{3}(?!\d)(?:\.\d+)?    # 1,234.50 and 1,00,000
  | (?<!\d\ )[1-9]\d{0,2}(?:(?:\ \d{3})+(?!\d|\ \d)|(?:['_]\d{3})+(?!\d))(?:[.,]\d+)?      # 1 234,5 and 1'234
  | (?<!\d,)(?:\d{1,3},(?:\d{1,2}|\d{4,})|(?:0|\d{4,}),\d+)(?!\d|,\d)                       # 12,5 and 0,125
  | \d+(?:\.\d+)? | \.\d+
)"""
_EXPONENT = r"(?:[eE][-+]?\d{1,3}(?!\w))"
_POWER = r"(?:\^(?:[-+]?\d+|\{[-+]?\d+\}|\([-+]?\d+\))|(?<=\d)\*\*[-+]?\d+(?![\d*]))"
_ROOT = rf"√(?:\[[2-9]\])?\(?{_DIGITS}\)?"
_TERM = rf"""(?:
    {_DIGITS}{_EXPONENT}?{_POWER}?(?:\s?[*x]\s?10{_POWER})?(?:\s?\*?\s?{_ROOT})?(?:\s?π)?
  | {_ROOT}(?:\s?π)?
  | π(?=\s?/)
)"""
_PARTS = r"""(?:
    \d+(?:\.\d+)?(?:(?::\d+(?:\.\d+)?)+|(?:\ :\ \d+(?:\.\d+)?)+)                            # 12:30 and 3 : 2
  | \d+(?:/\d+){2,} | \d{4}-\d\d?-\d\d?                                                     # 12/25/2020
  | (?![1-9]\d{0,2}(?:\.\d{3})+(?!\.?\d))\d+(?:\.\d+){2,}                                   # 1.2.3, not 1.234.567
)(?!\d)"""
_CURRENCY = "$€£¥₹₩₽₺₫₪฿₦₱"
_NUMBER = re.compile(
    rf"""
    (?=[-{_CURRENCY}√π.\d]|(?i:negative|minus))
    (?P<sign>(?<![\w)\]])-|\b(?i:negative)\s|(?:^|(?<=\bis\s)|(?<=[:=]\s))(?i:minus)\s)?
    (?: (?P<currency>[{_CURRENCY}]\s?)(?P<inner>-)?
      | (?<!\w)(?<!\d[./])(?<!\^)(?<!\^[-+({{])(?<!\^[({{][-+])(?<!_\{{)(?<![A-Za-z]\*\*)
    )
    (?: (?P<parts>{_PARTS})
      | (?P<whole>{_DIGITS})(?:\ and)?\ (?P<over>\d+)/(?P<under>\d+)(?![/\d])
      | (?P<term>{_TERM})(?:\s?/\s?\(?(?P<divisor>{_TERM})\)?)?
    )
    (?P<magnitude>
        (?:[ -]?(?i:hundred|thousand|million|billion|trillion|lakh|crore)s?\b){{1,2}}
      | (?(currency)(?:[kKmMbBT]|mn|bn|tn|\s(?:[KMBT]|mn|bn|tn))|k)(?!\w)
    )?
    """,
    re.VERBOSE,
)
_FACTORS = re.compile(
    rf"""
    (?P<digits>{_DIGITS}{_EXPONENT}?)?(?P<power>{_POWER})?(?:\s?[*x]\s?10(?P<of_ten>{_POWER}))?
    (?:\s?\*?\s?√(?:\[(?P<degree>[2-9])\])?\(?(?P<root>{_DIGITS})\)?)?(?:\s?(?P<pi>π))?
    """,
    re.VERBOSE,
)
_GROUPED_BY_COMMAS = re.compile(r"[1-9]\d?\d?(?:,\d{2,3})*,\d{3}")
_MAGNITUDES = {
    "hundred": 10**2, "thousand": 10**3, "lakh": 10**5, "million": 10**6, "crore": 10**7, "billion": 10**9,
    "trillion": 10**12, "k": 10**3, "m": 10**6, "mn": 10**6, "b": 10**9, "bn": 10**9, "t": 10**12, "tn": 10**12,
}  # fmt: skip


def find_numbers(text: str) -> list[re.Match[str]]:
    """The numbers in a plain text (see `plain`), in order; none overlaps another.

    >>> [number.group() for number in find_numbers("From $1,080 to 2 1/2 at 12:30, not 10-5")]
    ['$1,080', '2 1/2', '12:30', '10', '5']
    """
    return list(_NUMBER.finditer(text))


def equal(one: Value, other: Value) -> bool:
    """Whether two values are the same: integers exactly, others within a relative 1e-9, parts one by one.

    >>> equal(0.75, 3 / 4), equal(10**16, 10**16 + 1), equal((12, 30), (11, 30))
    (True, False, False)
    """
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, tuple) or isinstance(other, tuple):
        return False
    if isinstance(one, int) and isinstance(other, int):
        return one == other
    return math.isclose(one, other, rel_tol=1e-9)


def holds_number(text: str) -> bool:
    """Whether there is a number in a text, plain or not."""
    return _NUMBER.search(plain(text)) is not None


def value_of(number: re.Match[str]) -> Value:
    """What one of `find_numbers` is worth.

    >>> [value_of(number) for number in find_numbers("From $1,080 to 2 1/2 at 12:30, not 10-5")]
    [1080, 2.5, (12, 30), 10, 5]
    """
    if number["parts"]:
        between = next(mark for mark in ":/-." if mark in number["parts"])
        return tuple(map(_digits, number["parts"].replace(" ", "").split(between)))
    if number["whole"]:
        over, under = _digits(number["over"]), _digits(number["under"])
        whole = _digits(number["whole"]) if over < under else 0  # an improper fraction stands for itself
        value = whole + _quotient(over, under)
    else:
        value = _product(number["term"])
        if number["divisor"]:
            value = _quotient(value, _product(number["divisor"]))
    for word in re.findall("[a-z]+", (number["magnitude"] or "").lower()):
        value *= _MAGNITUDES[word.removesuffix("s")]
    return -value if number["sign"] or number["inner"] else value


def _product(term: str) -> int | float:
    """The value of a `_TERM`: digits, a power of them, a power of ten, a root and π, multiplied."""
    factors = _FACTORS.fullmatch(term)
    assert factors is not None, term
    value: int | float = _digits(factors["digits"]) if factors["digits"] else 1
    if factors["power"]:
        value = _power(value, factors["power"])
    if factors["of_ten"]:
        value *= _power(10, factors["of_ten"])
    if factors["root"]:
        value *= _digits(factors["root"]) ** (1 / int(factors["degree"] or 2))
    return value * math.pi if factors["pi"] else value


def _digits(text: str) -> int | float:
    """The value of `_DIGITS`, perhaps with an exponent; of dot and comma, the last is the decimal mark, if any is."""
    text = re.sub("[ '_]", "", text)
    if text.isdecimal():
        return _integer(text)
    comma, dot = text.rfind(","), text.rfind(".")
    if comma > dot and (dot >= 0 or not _GROUPED_BY_COMMAS.fullmatch(text)):
        return float(text.replace(".", "").replace(",", "."))
    text = text.replace(",", "")
    if text.count(".") > 1:
        text = text.replace(".", "")
    return _integer(text) if text.isdecimal() else float(text)


def _integer(text: str) -> int | float:
    """Exact up to 100 digits; a float beyond, infinite from 310 digits on. Python reads no integer of 4,301 digits."""
    return int(text) if len(text) <= 100 else float(text)


def _power(base: float, written: str) -> float:
    try:
        return float(base) ** int(re.sub(r"[^-\d]", "", written))
    except (OverflowError, ZeroDivisionError, ValueError):  # too large, 0 to a negative power, too many digits
        return math.inf


def _quotient(over: float, under: float) -> int | float:
    if under == 0:
        return math.nan
    return over // under if isinstance(over, int) and isinstance(under, int) and over % under == 0 else over / under


# ---- spellings made plain -----------------------------------------------------------------------------------------

_SUPERSCRIPTS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹]*[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_MINUS_BEHIND_EQUALS = re.compile(r"(?<==)(\s?)-\s(?=[\d$.])")  # elsewhere a dash with a space is a bullet
_FRACTION_BEHIND_DIGIT = re.compile("(?<=[0-9])(?=[¼½¾⅐-⅞])")  # a space makes "2½" a mixed number
_LATEX = [
    (re.compile(r"\\[,!;: ]|~"), " "),
    (re.compile(r"\\(?:left|right|displaystyle|(?:text|mathrm|mathbf|textbf|mbox)(?=\{))"), ""),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "*"),
    (re.compile(r"\\pi(?![A-Za-z])"), "π"),
    (re.compile(r"\^\{?\\circ\}?"), "°"),
    (re.compile(r"\\sqrt(\[\d\])?\{([^{}]*)\}"), r"√\1(\2)"),
    (re.compile(r"\\sqrt(\[\d\])?\s?(\d)"), r"√\1\2"),
    (re.compile(r"(?<=\d)\s*(?=\\[dtc]?frac)"), " "),
    (re.compile(r"\\[dtc]?frac\s?(?:\{([^{}]*)\}|(\d))\s?(?:\{([^{}]*)\}|(\d))"), r"\1\2/\3\4"),
    (re.compile(r"\\([$%&#_])"), r"\1"),
    (re.compile(r"\\[()\[\]]"), " "),
]


def plain(text: str) -> str:
    r"""LaTeX and Unicode spellings of numbers as plain characters; other text stays readable, not equal.

    >>> plain(r"\frac{3}{4}"), plain("2½"), plain("–5"), plain("10⁻³"), plain(r"\$1{,}080")
    ('3/4', '2 1/2', '-5', '10^{-3}', '$1,080')
    """
    if not text.isascii():
        text = _FRACTION_BEHIND_DIGIT.sub(" ", text)
        text = _SUPERSCRIPTS.sub(lambda found: "^{" + found.group().translate(_CHARACTERS) + "}", text)
        text = text.translate(_CHARACTERS)
    if "\\" in text or "{,}" in text:
        text = text.replace("{,}", ",")
        for pattern, replacement in _LATEX:
            text = pattern.sub(replacement, text)
    text = _MINUS_BEHIND_EQUALS.sub(r"\1-", text)
    return text.replace("sqrt", "√") if "sqrt(" in text else text


class _Characters(dict[int, str]):
    """What one character is made, worked out when first seen."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        compatible = unicodedata.normalize("NFKC", character)
        if character.isdecimal():
            made = str(unicodedata.decimal(character))
        elif unicodedata.decomposition(character).startswith("<fraction>"):
            made = compatible.replace("⁄", "/")
        elif compatible.isascii():
            made = compatible
        else:
            made = character
        self[code] = made
        return made


_CHARACTERS = _Characters(
    {ord(dash): "-" for dash in "–‒−‐‑⁻"} | dict(zip(map(ord, "⁄∕∶×·⋅’⁺№"), "//:***'+#", strict=True))
)
