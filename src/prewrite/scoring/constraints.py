"""What the user demands of every prompt that is chosen: texts that it must hold or must not, and a length.

Guards guess what makes a rewrite useless, and can be left out. These rules are the user's own: they hold whatever the
guards are. In training each violation is a penalty under the rule's name; what violates a rule is never chosen.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from prewrite.errors import ConfigError
from prewrite.scoring.prompt import TaskPrompt
from prewrite.task_models.token_counts import estimated_tokens
from prewrite.text import UNSPACED, shown, spaced
from prewrite.types import RewriteExample

FIRST_VIOLATION = 0.5
"""What the first missing or forbidden text, or token too many, counts; one is enough for never being chosen. With all
texts, or twice as many tokens as there may be, it is 1."""


def about_tokens(prompt: TaskPrompt) -> int:
    """Tokens of a prompt without its input, where nobody has a tokenizer."""
    return estimated_tokens(prompt.sent(""))


@dataclass(frozen=True, slots=True)
class Constraints:
    """The rules. Raises `ConfigError` for an empty text, and for one that is both demanded and forbidden."""

    keep: tuple[str, ...] = ()
    """Texts that the wording of the instruction must hold, to the letter: case and spaces count."""
    forbid: tuple[str, ...] = ()
    """Texts that wording, answer line and exemplars must not hold: whole words, in any case and spacing."""
    max_prompt_tokens: int | None = None
    """The most tokens of the whole prompt without its input; None for no limit."""
    tokens_of: Callable[[TaskPrompt], int] = about_tokens
    """Counts them; `Evaluator.prompt_tokens` counts as the task model does."""

    def __post_init__(self) -> None:
        for setting in ("keep", "forbid"):
            if any(not text.strip() for text in getattr(self, setting)):
                raise ConfigError(f"{setting} holds an empty text; give the words that are meant")
        for text in self.keep:
            if phrase := self.forbidden_in(text):
                raise ConfigError(f"keep {shown(text)} holds {shown(phrase)}, which forbid rules out; leave one out")

    def violations(self, prompt: TaskPrompt) -> dict[str, float]:
        """Name of the rule -> violation in (0, 1], of the rules that the prompt breaks."""
        missing = [text for text in self.keep if text not in prompt.instruction]
        texts = [prompt.instruction, prompt.answer_line, *(text for pair in prompt.exemplars for text in pair)]
        present = [text for text in self.forbid if any(_finder(text).search(part) for part in texts)]
        found = {
            "keep": _share(missing, self.keep),
            "forbid": _share(present, self.forbid),
            "max_prompt_tokens": self._excess(prompt),
        }
        return {name: value for name, value in found.items() if value}

    def _excess(self, prompt: TaskPrompt) -> float:
        """How far the prompt is beyond the limit of tokens, in [0, 1]."""
        if self.max_prompt_tokens is None or (tokens := self.tokens_of(prompt)) <= self.max_prompt_tokens:
            return 0.0
        return min(1.0, FIRST_VIOLATION * tokens / self.max_prompt_tokens)

    def allows(self, prompt: TaskPrompt) -> bool:
        """Whether the prompt breaks no rule."""
        return not self.violations(prompt)

    def allows_row(self, row: RewriteExample) -> bool:
        """Whether a row may be shown as an exemplar."""
        return self.forbidden_in(row.input) is None and self.forbidden_in(row.targets[0]) is None

    def forbidden_in(self, text: str) -> str | None:
        """The first forbidden text that `text` holds."""
        return next((phrase for phrase in self.forbid if _finder(phrase).search(text)), None)

    def check_initial(self, instruction: str) -> None:
        """Raise `ConfigError` for an initial instruction that breaks a rule: it competes with the others."""
        for text in self.keep:
            if text not in instruction:
                raise ConfigError(
                    f"keep {shown(text)} is not in the initial instruction {shown(instruction)}, to the letter; the "
                    "initial instruction competes too, so write the text into it, or correct keep"
                )
        if phrase := self.forbidden_in(instruction):
            raise ConfigError(
                f"forbid {shown(phrase)} is in the initial instruction {shown(instruction)}; the initial instruction "
                "competes too, so take the text out of it, or correct forbid"
            )

    def check_length(self, initial: TaskPrompt) -> None:
        """Raise `ConfigError` for an initial prompt that is longer than a prompt may be."""
        if self.max_prompt_tokens is not None and (tokens := self.tokens_of(initial)) > self.max_prompt_tokens:
            raise ConfigError(
                f"max_prompt_tokens is {self.max_prompt_tokens} and the initial prompt without its input has {tokens} "
                f"tokens (instruction {shown(initial.instruction)} and template); raise max_prompt_tokens, or shorten "
                "the instruction"
            )

    def check_labels(self, labels: tuple[str, ...]) -> None:
        """Raise `ConfigError` for labels that exemplars could not name."""
        for label in labels:
            if phrase := self.forbidden_in(label):
                raise ConfigError(
                    f"forbid {shown(phrase)} is in the label {shown(label)}, so no exemplar could show that label; "
                    "correct forbid, or leave exemplars out of parts"
                )


NO_CONSTRAINTS = Constraints()


def _share(broken: list[str], texts: tuple[str, ...]) -> float:
    return FIRST_VIOLATION + (1 - FIRST_VIOLATION) * len(broken) / len(texts) if broken else 0.0


def _finder(phrase: str) -> re.Pattern[str]:
    """Finds `phrase` in any case and spacing; where it begins or ends with a letter or digit, a word does so too.

    >>> [bool(_finder("AI").search(text)) for text in ("use ai.", "said")], bool(_finder("!").search("Now!"))
    ([True, False], True)
    """
    letter = rf"[^\W{UNSPACED}]"
    before = rf"(?<!{letter})" if re.match(rf"\s*{letter}", phrase) else ""
    after = rf"(?!{letter})" if re.search(rf"{letter}\s*$", phrase) else ""
    return re.compile(f"{before}{spaced(phrase)}{after}", re.IGNORECASE)
