"""Numbers as a reader wants them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TEXT_SHOWN = 4_000
"""Characters of a prompt; the rewrite itself is never cut."""
NONE = "–"  # noqa: RUF001


def percent(share: float | None) -> str:
    """A share as points with one decimal; a dash where there is none."""
    return NONE if share is None else f"{100 * share:.1f}"


def points_tick(share: float) -> str:
    """A share on an axis, in points."""
    return f"{100 * share:.4g}"


def signed(share: float) -> str:
    """A difference of shares in points, with its sign; a true minus sign, so that columns line up."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")  # noqa: RUF001


def pvalue(p: float) -> str:
    """A p-value with two digits that matter."""
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def duration(seconds: float) -> str:
    """Seconds in the two largest units that a person would name."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def prompt_tokens(lengths: Mapping[str, Any]) -> str:
    """How long a prompt is without its input, and how long it may be; `prompt_tokens` of `result.json`."""
    told = [f"initial prompt {lengths['initial']:,}"]
    told += [f"at most {lengths['most']:,}"] if lengths["most"] is not None else []
    told += ["estimated"] if lengths["estimated"] else []
    return f"{lengths['prompt']:,} ({'; '.join(told)})"


def calls_and_tokens(usage: Mapping[str, Any]) -> str:
    """How often a model was asked and what that took; a part of `cost` in `result.json`."""
    estimated = ", estimated" if usage.get("uncounted") else ""
    return f"{usage['calls']:,} calls, {usage['input_tokens']:,} tokens in, {usage['output_tokens']:,} out{estimated}"


def cost_sentence(usage: Mapping[str, Any]) -> str:
    """What a run asked its task model, in a sentence; `cost.task_model` of `result.json`."""
    prompts, hits = usage.get("prompts", 0), usage.get("cache_hits", 0)
    told = f"{prompts:,.0f} questions to the task model"
    if hits:
        told += f", of which {hits:,.0f} were answered from the cache or stood in a batch twice"
    if usage.get("seconds"):
        told += f", took {duration(usage['seconds'])}"
    estimated = ", by estimate" if usage.get("uncounted") else ""
    if usage.get("input_tokens"):
        told += f"; {usage['input_tokens']:,.0f} tokens went in and {usage.get('output_tokens', 0):,.0f} came out"
        told += estimated
    for name, words in (("retries", "attempts failed and were made again"), ("no_answers", "got no answer")):
        if usage.get(name):
            told += f"; {usage[name]:,.0f} {words}"
    return f"{told}."


def cut(text: str) -> str:
    """At most `TEXT_SHOWN` characters, and how many more there were."""
    if len(text) <= TEXT_SHOWN:
        return text
    return f"{text[:TEXT_SHOWN]} … ({len(text) - TEXT_SHOWN:,} more characters)"
