"""Every error that `prewrite` raises on purpose, and the filter that keeps keys out of what is shown or written.

A message names the setting or place, the value got, the rule, and the remedy. The command line catches
`PrewriteError`, prints `error: ...` and exits with 2. To add one: inherit the base and the stdlib type it refines.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
from functools import lru_cache
from urllib.parse import quote

_KEY_VARIABLE = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)(_?\d+)?$", re.IGNORECASE)
_LOOKS_LIKE_A_KEY = re.compile(
    r"""(?P<before>
            authorization["']?\s*[:=]\s*["']?(?:Bearer|Basic)?\s*
          | \bBearer\s+(?=[^\s"',;]*[\d_.-])
          | ["']?\b(?:x-)?api[-_]?key["']?\s*[:=]\s*["']?
          | [?&](?:api[-_]?key|key|token|access_token)=
        ) [^\s"'&,;]{6,}
      | (?P<scheme>://)[^/\s:@]+:[^/\s@]+(?=@)
      | \bsk-(?=[\w-]*\d)[\w-]{16,} | \b(?:hf|gsk|gh[pousr]|github_pat)_\w{20,} | \b(?:xai|nvapi|pplx|glpat)-[\w-]{16,}
      | \bAIza[\w-]{30,} | \bAKIA[0-9A-Z]{16}\b
    """,
    re.VERBOSE | re.IGNORECASE,
)


def without_keys(text: str, *, guess: bool = True) -> str:
    """`text` with every key in it replaced by `[hidden]`.

    Hidden is the value of each environment variable that is named as a key (`OPENAI_API_KEY`, `HF_TOKEN`, ...), also
    escaped or encoded, and, unless `guess` is off, whatever looks like a key.
    """
    if (known := _values(tuple(sorted(_set_keys())))) is not None:
        text = known.sub("[hidden]", text)
    return _LOOKS_LIKE_A_KEY.sub(_hidden, text) if guess else text


def _hidden(match: re.Match[str]) -> str:
    return f"{match['before'] or match['scheme'] or ''}[hidden]"


def _set_keys() -> set[str]:
    """Values of the variables that are named as keys; not a plain word that a local server takes, such as `ollama`."""
    values = {value.strip() for name, value in os.environ.items() if _KEY_VARIABLE.search(name)}
    return {value for value in values if len(value) >= 12 or (len(value) >= 6 and not value.isalpha())}


@lru_cache(maxsize=4)
def _values(keys: tuple[str, ...]) -> re.Pattern[str] | None:
    forms: set[str] = set()
    for key in keys:
        raw = key.encode("utf-8", "surrogateescape")
        percent = {quote(raw), quote(raw, safe="")}
        forms |= percent | {re.sub("%..", lambda code: code.group().lower(), text) for text in percent}
        forms |= {key, json.dumps(key)[1:-1], repr(key)[1:-1], key.replace("/", r"\/")}
        forms |= {html.escape(key), html.escape(key, quote=False)}
        forms.add(base64.b64encode(raw).decode().rstrip("="))
    return re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True)))) if forms else None


class PrewriteError(Exception):
    """Base of all errors of this package; its text never holds a key, whatever a server or library said."""

    def __init__(self, *args: object):
        super().__init__(*(without_keys(arg) if isinstance(arg, str) else arg for arg in args))


class ConfigError(PrewriteError, ValueError):
    """A setting is unknown, out of range, or contradicts another."""


class MetricError(ConfigError):
    """The user's own metric raised, or returned what is no score."""


class DataError(PrewriteError, ValueError):
    """A data file or row breaks a rule; the message names file, line, field and rule."""


class MissingDependencyError(PrewriteError, ImportError):
    """An optional package is not installed; the message holds the pip line."""


class ModelNotFoundError(PrewriteError, FileNotFoundError):
    """A model is neither on disk, nor in an installed package, nor reachable on the hub."""


class TaskModelError(PrewriteError, RuntimeError):
    """The task model could not answer: the machinery's fault, so never a score."""


class NoAnswerError(TaskModelError):
    """The task model gave no answer to one prompt: it refused it, cut it, or spent its tokens on thinking.

    `row` is the prompt's place in the call, from 0, and `reason` what happened to it, where the message says more than
    that. The rest of the call may be asked again without it.
    """

    def __init__(self, *args: object, row: int = 0, reason: str | None = None):
        super().__init__(*args)
        self.row, self.reason = row, str(self) if reason is None else without_keys(reason)


class TrainingError(PrewriteError, RuntimeError):
    """Training cannot go on: its numbers are not finite, or its updates teach nothing."""


class CapabilityError(TaskModelError):
    """A backend was asked for something that it cannot do, such as scoring given labels."""


class BudgetExceededError(PrewriteError, RuntimeError):
    """The next task-model call would exceed the budget that the user set; nothing was sent."""


class StorageError(PrewriteError, OSError):
    """A file or folder cannot be made or written: no space, no permission, or something else in its place."""


class RunFolderError(PrewriteError, OSError):
    """A run folder exists, is missing, or does not hold what was asked for."""
