"""Filling named slots, the templates that put an instruction and an input together, and finding phrases in a text.

The template is ours and the rewrite is a value put into it, so a rewrite can neither lose the input nor break on a
brace. Departure from the paper: the default template ends in a cue, since small task models need one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from prewrite.errors import ConfigError

TASK_TEMPLATE = "{instruction}\n\nInput: {input}\nOutput:"

TASK_TEMPLATES: dict[str, str] = {
    "default": TASK_TEMPLATE,
    # All rewrites then share each input's computation; see docs/task_models.md.
    "input_first": "Input: {input}\n\nInstruction: {instruction}\nOutput:",
    # arXiv 2401.08189v4, Table 11. AG News joins title and description; here both are in the input already.
    "agnews": "{instruction}\nArticle: {input}",
    "sst2": "{instruction}\nText: {input}",
    "nq": "{instruction}\nQuestion: {input}",
    "gsm8k": "{instruction}\nQuestion: {input}",
}

TASK_SLOTS = ("instruction", "input")


def fill(template: str, values: Mapping[str, str], *, required: Iterable[str] = ()) -> str:
    """Put each value into its `{name}` slot, in one pass, so braces in a value are never read as slots.

    Braces around any other text stay as they are (`{"label": x}`). A value without a slot is left out. Raises
    `ConfigError` for a name in `required` that has no slot in `template` or no value.

    >>> fill('{instruction} as {"label": x}: {input}', {"instruction": "Use {input}", "input": "a {b}"})
    'Use {input} as {"label": x}: a {b}'
    """
    for name in required:
        if f"{{{name}}}" not in template:
            raise ConfigError(f"template {_shown(template)} has no slot {{{name}}}; put {{{name}}} where it belongs")
        if name not in values:
            raise ConfigError(f"template {_shown(template)} needs a value for {{{name}}}, got {sorted(values)}")
    if not values:
        return template
    slots = re.compile(r"\{(" + "|".join(map(re.escape, values)) + r")\}")
    return slots.sub(lambda match: values[match.group(1)], template)


def check_task_template(template: str) -> None:
    """Raise `ConfigError` unless `template` holds the slots `{instruction}` and `{input}`."""
    for name in TASK_SLOTS:
        if f"{{{name}}}" not in template:
            raise ConfigError(
                f"task template {_shown(template)} has no slot {{{name}}}; it needs {{instruction}} and {{input}}, "
                f"as in {TASK_TEMPLATE!r}, or is one of the names {', '.join(TASK_TEMPLATES)}"
            )


def get_task_template(template: str) -> str:
    """The template of that name, or `template` itself where it is the text of one. Raises `ConfigError`."""
    text = TASK_TEMPLATES.get(template, template)
    check_task_template(text)
    return text


# Scripts without spaces between words, and Korean, which ties its particles to them.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"


@lru_cache(maxsize=1024)
def mention(*phrases: str) -> re.Pattern[str]:
    """Finds any of `phrases` as whole words, in any case and spacing; the longest where they overlap.

    >>> mention("c", "c++").findall("c++, C and cc")
    ['c++', 'C']
    """
    return re.compile("|".join(map(_as_words, sorted(phrases, key=len, reverse=True))), re.IGNORECASE)


def _as_words(phrase: str) -> str:
    pattern = spaced(phrase)
    before = "" if re.match(rf"\s*[{_UNSPACED}]", phrase) else r"(?<!\w)"
    after = "" if re.search(rf"[{_UNSPACED}]\s*$", phrase) else r"(?!\w)"
    return f"{before}{pattern}{after}"


def spaced(phrase: str) -> str:
    """A pattern for `phrase` in any spacing."""
    return r"\s+".join(map(re.escape, phrase.split()))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
