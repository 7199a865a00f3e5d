"""The templates that put an instruction and an input together.

The template is ours and the rewrite is a value put into it, so a rewrite can neither lose the input nor break on a
brace. Departure from the paper: the default template ends in a cue, since small task models need one.
"""

from __future__ import annotations

import difflib
import re

from prewrite.errors import ConfigError
from prewrite.text import shown

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


def check_task_template(template: str) -> None:
    """Raise `ConfigError` unless `template` holds the slots `{instruction}` and `{input}`, and none misspelled."""
    for name in TASK_SLOTS:
        if f"{{{name}}}" not in template:
            raise ConfigError(
                f"task template {shown(template)} has no slot {{{name}}}; it needs {{instruction}} and {{input}}, "
                f"as in {TASK_TEMPLATE!r}, or is one of the names {', '.join(TASK_TEMPLATES)}"
            )
    for name in re.findall(r"\{(\w+)\}", template):  # other words in braces are text
        if name not in TASK_SLOTS and (meant := difflib.get_close_matches(name.lower(), TASK_SLOTS, n=1, cutoff=0.75)):
            raise ConfigError(f"task template {shown(template)} has {{{name}}}; did you mean {{{meant[0]}}}?")


def get_task_template(template: str) -> str:
    """The template of that name, or `template` itself where it is the text of one. Raises `ConfigError`."""
    text = TASK_TEMPLATES.get(template, template)
    check_task_template(text)
    return text
