"""A limit on what the task model may cost, kept before every attempt and never exceeded by one call.

What was spent can be kept in a file (`ledger.py`), so that it is not forgotten when a process is killed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from prewrite.errors import BudgetExceededError, ConfigError
from prewrite.files import why_unreadable
from prewrite.task_models.base import TaskModel
from prewrite.task_models.labels import is_number
from prewrite.task_models.ledger import Ledger, Spent
from prewrite.task_models.stream import Batch, Replies, Wrapper, stream, unwrapping
from prewrite.text import parse_yaml


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in US dollars."""

    input: float
    """Per million input tokens."""
    output: float
    """Per million output tokens."""

    def usd(self, input_tokens: float, output_tokens: float) -> float:
        """Dollars for that many tokens."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6

    @classmethod
    def load(cls, path: Path, model: str) -> Price:
        """The price of `model` in a YAML or JSON table `{model: {input: USD, output: USD}}`, per million tokens.

        Raises `ConfigError` that names the file if it, the model, or a number is missing or negative.
        """
        try:
            table = parse_yaml(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"price table {path} cannot be read ({why_unreadable(error)}); give a YAML file such as "
                "`model: {input: 0.15, output: 0.60}`"
            ) from None
        except ValueError as error:
            raise ConfigError(f"price table {path} cannot be read as YAML ({error}); correct it") from None
        row = table.get(model) if isinstance(table, dict) else None
        if not isinstance(row, dict):
            known = ", ".join(map(str, table)) if isinstance(table, dict) else "none"
            raise ConfigError(f"price table {path} has no model {model!r} (it has: {known}); add `{model}: ...`")
        numbers = [row.get(field) for field in ("input", "output")]
        if not all(is_number(number) and number >= 0 for number in numbers):
            raise ConfigError(
                f"price table {path}, model {model!r}: needs `input` and `output`, dollars per million tokens, "
                f"0 or more; got {row!r}"
            )
        return cls(float(row["input"]), float(row["output"]))


@dataclass
class _Held:
    """Reserved for what is not yet known."""

    planned: int = 0
    """Calls that a batch under way will make, of which nothing was sent yet."""
    calls: int = 0
    """Calls that were sent and have no answer yet; their tokens are:"""
    input_tokens: int = 0
    output_tokens: int = 0


class Budget:
    """Limits of one run; None means no limit. Safe in several threads.

    Each attempt reserves the most it can take before it is sent: one call, one token per byte of the prompt, the
    output limit. The reservation becomes what the backend says it took when the answer is there. An attempt that
    failed after it may have been billed, and what a backend does not count, stay at the full reservation. So does what
    was under way when a process was killed, if the budget has a ledger (`kept_in`).

    Args:
        max_calls: prompts sent, retries included.
        max_tokens: input and output tokens together.
        max_usd: dollars by `price`, which is then required.
        max_minutes: minutes since the first call; checked before each attempt, so attempts under way may still end.
        spent: what earlier parts of the same run took.
    """

    def __init__(
        self,
        *,
        max_calls: int | None = None,
        max_tokens: int | None = None,
        max_usd: float | None = None,
        max_minutes: float | None = None,
        price: Price | None = None,
        spent: Spent | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        limits = {"calls": max_calls, "tokens": max_tokens, "usd": max_usd, "minutes": max_minutes}
        for setting, limit in limits.items():
            if limit is not None and limit < 0:
                raise ConfigError(f"budget: max {setting} is {limit}; it must be 0 or more")
        if max_usd is not None and price is None:
            raise ConfigError(
                "max_usd is set, but there is no price for the task model; give a price table "
                "(`model: {input: 0.15, output: 0.60}`, dollars per million tokens)"
            )
        self.max_calls, self.max_tokens, self.max_usd, self.max_minutes = max_calls, max_tokens, max_usd, max_minutes
        self.price = price
        self.spent = spent or Spent()
        self._held = _Held()
        self._ledger: Ledger | None = None
        self._earlier = Spent()
        self._lock = threading.Lock()
        self._clock = clock
        self._last: float | None = None

    @property
    def usd(self) -> float | None:
        """Dollars spent so far, None without a price."""
        return self.price.usd(self.spent.input_tokens, self.spent.output_tokens) if self.price else None

    @contextmanager
    def kept_in(self, path: Path) -> Iterator[None]:
        """Count on from what the ledger at `path` holds, and keep the count there, so that no kill forgets it.

        Raises what `Ledger` raises.
        """
        with Ledger(path) as ledger:
            with self._lock:
                self._ledger, self._earlier = ledger, ledger.known
                self._add(self._earlier)
                self._note()
            try:
                yield
            finally:
                with self._lock:
                    self._ledger = None

    def count_earlier(self, earlier: Spent) -> None:
        """Count what a checkpoint says that earlier parts of the run took, where the ledger does not know of it."""
        with self._lock:
            known = asdict(self._earlier)
            self._add(Spent(**{name: max(0, count - known[name]) for name, count in asdict(earlier).items()}))
            self._note()

    def plan(self, calls: int) -> None:
        """Set aside the calls of a batch before any is made. Raises `BudgetExceededError` and sets nothing aside."""
        with self._lock:
            self._check(calls, 0, 0)
            self._held.planned += calls

    def unplan(self, calls: int) -> None:
        """Give back calls that were set aside and not made."""
        with self._lock:
            self._held.planned -= calls

    def reserve(self, *, planned: bool, input_tokens: int, output_tokens: int) -> None:
        """Set aside what an attempt can take at most, before it is sent.

        `planned` says that its call is one of those that `plan` has set aside. Raises `BudgetExceededError` and sets
        nothing aside.
        """
        with self._lock:
            self._check(0 if planned else 1, input_tokens, output_tokens)
            self._held.planned -= planned
            self._held.calls += 1
            self._held.input_tokens += input_tokens
            self._held.output_tokens += output_tokens
            self._note()

    def settle(self, held: Spent, took: Spent) -> None:
        """Give back the reservation `held` of an attempt and count what was really taken."""
        with self._lock:
            self._held.calls -= held.calls
            self._held.input_tokens -= held.input_tokens
            self._held.output_tokens -= held.output_tokens
            self._add(took)
            self._note()

    def _add(self, other: Spent) -> None:
        self.spent.calls += other.calls
        self.spent.input_tokens += other.input_tokens
        self.spent.output_tokens += other.output_tokens
        self.spent.seconds += other.seconds

    def _note(self) -> None:
        """Write to the ledger what is used or under way."""
        if self._ledger is not None:
            spent, held = self.spent, self._held
            self._ledger.write(
                spent.calls + held.calls,
                spent.input_tokens + held.input_tokens,
                spent.output_tokens + held.output_tokens,
                spent.seconds,
            )

    def _check(self, calls: int, input_tokens: int, output_tokens: int) -> None:
        now = self._clock()
        self.spent.seconds += now - (self._last if self._last is not None else now)
        self._last = now
        if self.max_minutes is not None and self.spent.seconds >= self.max_minutes * 60:
            raise _exceeded("max_minutes", f"{self.max_minutes:g}", f"{self.spent.seconds / 60:.1f} minutes", "")
        made = self.spent.calls + self._held.calls + self._held.planned
        if self.max_calls is not None and made + calls > self.max_calls:
            raise _exceeded("max_task_calls", f"{self.max_calls:,}", f"{made:,} calls", f"{calls:,} more")
        tokens_in = self.spent.input_tokens + self._held.input_tokens
        tokens_out = self.spent.output_tokens + self._held.output_tokens
        tokens, more = tokens_in + tokens_out, input_tokens + output_tokens
        if self.max_tokens is not None and more and tokens + more > self.max_tokens:
            raise _exceeded("max_task_tokens", f"{self.max_tokens:,}", f"{tokens:,} tokens", f"up to {more:,} more")
        if self.max_usd is not None and self.price is not None and more:
            spent, cost = self.price.usd(tokens_in, tokens_out), self.price.usd(input_tokens, output_tokens)
            if spent + cost > self.max_usd:
                raise _exceeded("max_usd", f"{self.max_usd:g}", f"${spent:.4f}", f"up to ${cost:.4f} more")


def _exceeded(setting: str, limit: str, used: str, needed: str) -> BudgetExceededError:
    wants = f", the next needs {needed}" if needed else ""
    return BudgetExceededError(
        f"{setting} is {limit}: {used} used or under way{wants}; nothing was sent for it. Raise {setting} and resume: "
        "answers so far are in the cache"
    )


class BudgetTaskModel(Wrapper):
    """Asks the wrapped model only what `budget` allows. Put it inside the cache, so that hits are free.

    A batch whose calls do not fit is refused whole, before anything is sent; tokens and dollars are held per attempt.
    """

    def __init__(self, inner: TaskModel, budget: Budget):
        super().__init__(inner)
        self.budget = budget

    def stream(self, batch: Batch) -> Replies:
        """The wrapped model's answers, paid for. Raises `BudgetExceededError`."""
        unsent = set(range(len(batch.prompts)))
        under_way: dict[int, Spent] = {}

        def sending(row: int, tokens_in: int, tokens_out: int) -> None:
            first = row in unsent  # its call is part of the reservation of the whole batch
            self.budget.reserve(planned=first, input_tokens=tokens_in, output_tokens=tokens_out)
            unsent.discard(row)
            under_way[row] = Spent(1, tokens_in, tokens_out)
            batch.sending(row, tokens_in, tokens_out)

        def failed(row: int, billed: bool) -> None:
            held = under_way.pop(row)
            self.budget.settle(held, held if billed else Spent(calls=1))
            batch.failed(row, billed)

        self.budget.plan(len(batch.prompts))
        try:
            for row, reply in stream(self.inner, replace(batch, sending=sending, failed=failed)):
                if held := under_way.pop(row, None):
                    read = held.input_tokens if reply.input_tokens is None else reply.input_tokens
                    written = held.output_tokens if reply.output_tokens is None else reply.output_tokens
                    self.budget.settle(held, Spent(1, read, written))
                yield row, reply
        finally:
            for held in under_way.values():
                self.budget.settle(held, held)
            self.budget.unplan(len(unsent))


def budget_of(task_model: TaskModel) -> Budget | None:
    """The budget of a task model in its wrappers, where it has one."""
    return next((part.budget for part in unwrapping(task_model) if isinstance(part, BudgetTaskModel)), None)


def estimate(prompts: Sequence[str], calls: int, *, output_tokens: int, price: Price | None = None) -> str:
    """One line on what `calls` prompts like these will take, for the user to read before the run starts.

    Tokens are guessed at four characters each; `output_tokens` is the most that one answer writes (0 for scoring).
    """
    mean = sum(map(len, prompts)) / max(1, len(prompts)) / 4
    tokens_in, tokens_out = round(mean * calls), output_tokens * calls
    line = f"at most {calls:,} task-model calls, about {tokens_in:,} input and up to {tokens_out:,} output tokens"
    return line + (f", about ${price.usd(tokens_in, tokens_out):.2f}" if price else "")
