"""The structures of a prompt that a search tries: answer lines, sets of exemplars, and where they stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

from prewrite.choosing.exemplars import fitting_pools, pools_of, random_sets, set_sizes
from prewrite.scoring.answer_lines import answer_lines
from prewrite.scoring.constraints import NO_CONSTRAINTS, Constraints
from prewrite.scoring.prompt import TEXT_LAYOUTS, Exemplar, Layout, TaskPrompt
from prewrite.types import RewriteExample


@dataclass(frozen=True, slots=True)
class PromptCandidate:
    """A prompt that may be chosen, and where it came from."""

    prompt: TaskPrompt
    source: str
    """`initial`, `answer line`, `exemplars`, or where its wording came from: `greedy`, `sample`, `rollout`, `file`."""


def structures(
    initial: TaskPrompt,
    example: RewriteExample,
    train_rows: Sequence[RewriteExample],
    count: int,
    *,
    parts: Sequence[str],
    layouts: Sequence[Layout] = TEXT_LAYOUTS,
    constraints: Constraints = NO_CONSTRAINTS,
    seed: int,
) -> list[PromptCandidate]:
    """Up to `count` prompts around the initial instruction: each answer line alone, then sets of exemplars.

    Layouts, answer lines and sizes take turns over the sets, so that each meets many of them. No prompt breaks one of
    the `constraints`: where they limit tokens, sets are drawn that fit.
    """
    lines = [initial.answer_line]
    if "answer_line" in parts:
        lines += [
            line
            for line in answer_lines(initial.instruction, example.choices, example.task)
            if line != initial.answer_line and constraints.allows(replace(initial, answer_line=line))
        ]
    found = [PromptCandidate(replace(initial, answer_line=line), "answer line") for line in lines[1:]]
    more = count - len(found)
    if "exemplars" in parts and more > 0:
        shown = [row for row in train_rows if constraints.allows_row(row)]
        sizes = set_sizes(len(example.choices or ()))
        pools = pools_of(shown, sizes)
        if constraints.max_prompt_tokens is not None:
            bare = [replace(initial, answer_line=line, exemplars=()) for line in lines]
            cost = _cost_of_exemplars(bare[0], layouts, constraints.tokens_of)
            for longest in sorted(bare, key=constraints.tokens_of, reverse=True):
                room = constraints.max_prompt_tokens - constraints.tokens_of(longest)
                if pools := fitting_pools(shown, sizes, room=room, cost=cost, seed=seed):
                    break
                if len(lines) > 1:  # exemplars bring more than an answer line, so the longer lines give way
                    lines.remove(longest.answer_line)
        ways = list(product(layouts, lines))
        for number, exemplars in enumerate(random_sets(pools, more, seed=seed) if pools else ()):
            layout, line = ways[number // len(pools) % len(ways)]
            prompt = replace(initial, exemplars=exemplars, layout=layout, answer_line=line)
            if constraints.allows(prompt):
                found.append(PromptCandidate(prompt, "exemplars"))
    return found[:count]


def shortened(prompt: TaskPrompt, constraints: Constraints) -> TaskPrompt:
    """The prompt with as many of its first exemplars, and then its answer line, as the limit of tokens allows."""
    for count in range(len(prompt.exemplars), -1, -1):
        shorter = replace(prompt, exemplars=prompt.exemplars[:count])
        if constraints.allows(shorter):
            return shorter
    return replace(shorter, answer_line="")


def _cost_of_exemplars(
    bare: TaskPrompt, layouts: Sequence[Layout], tokens_of: Callable[[TaskPrompt], int]
) -> Callable[[Exemplar], int]:
    """The most tokens that an exemplar adds to a prompt, in whichever layout; one to spare where words meet."""
    without = tokens_of(bare)

    @cache
    def cost(exemplar: Exemplar) -> int:
        ways = (replace(bare, exemplars=(exemplar,), layout=layout) for layout in layouts)
        return max(map(tokens_of, ways)) - without + 1

    return cost
