"""Named penalties that keep a rewrite readable and on task while training raises its reward.

A guard is a function `(rewrite, context) -> violation` in [0, 1]: 0 is fine, 1 is as bad as can be. A copy of the
initial instruction is always fine. All guards are deterministic and need no model. None of them proves that a rewrite
is good: each closes a hole through which a policy can leave the task, and the report shows which ones fired.

Most rules of `drift`, `off_task` and `gibberish` are about English, and are off where the instruction is in another
language (`english.is_english`). The other guards and the fidelity score hold in any language.
"""

from prewrite.scoring.guards.context import Guard, GuardContext
from prewrite.scoring.guards.registry import DEFAULT_GUARDS, GUARDS, check_guards, known_guards, language_note

__all__ = ["DEFAULT_GUARDS", "GUARDS", "Guard", "GuardContext", "check_guards", "known_guards", "language_note"]
