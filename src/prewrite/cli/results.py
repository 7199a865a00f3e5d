"""What a run found, in lines that a person reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def print_rewrite(result: Mapping[str, Any]) -> None:
    """A rewrite and its instruction, before and after."""
    from prewrite.choosing.evaluation import calibrated_note, points
    from prewrite.report.page_notes import guards_note

    print(f"\nInitial instruction: {result['instruction']}")
    print(f"Rewrite:             {result['rewrite']}")
    fidelity = result["fidelity"]["rewrite"]
    if fidelity is not None:
        print(f"Fidelity:            {fidelity:.2f} of what the instruction tells")
    if warning := guards_note(result):
        print(f"Warning: {warning}")
    if (test := result["test"]) is not None:
        print_test(result)
    print(result["verdict"])
    if test is None:
        return
    for name, gain in test["gains_over"].items():
        claim = "" if gain["significant"] else "no significant gain: "
        print(
            f"Over {name}: {claim}{points(gain['mean'])} points, 95% interval {points(gain['low'])} to "
            f"{points(gain['high'])}"
        )
    if note := calibrated_note(test, "rewrite"):
        print(note)


def print_prompt(result: Mapping[str, Any]) -> None:
    """A prompt as the task model reads it, and what each of its parts brings on test rows."""
    from prewrite.choosing.evaluation import points
    from prewrite.report.formats import prompt_tokens
    from prewrite.report.page_notes import guards_note
    from prewrite.scoring.prompt import TaskPrompt

    prompt, search = TaskPrompt.from_json(result["prompt"]), result["search"]
    print(f"\nInitial instruction: {result['instruction']}")
    print("Prompt:")
    print("\n".join(f"  | {line}" for line in prompt.render("{input}").splitlines()))
    if prompt.label_offsets is not None:
        offsets = ", ".join(f"{label} {nats:+.2f}" for label, nats in prompt.label_offsets)
        print(f"Label offsets in nats, taken off before the highest label is chosen: {offsets}")
    if warning := guards_note(result):
        print(f"Warning: {warning}")
    print(f"Tokens without the input: {prompt_tokens(result['prompt_tokens'])}")
    print_test(result)
    print(result["verdict"])
    means = {name: row["mean"] for name, row in result["test"]["instructions"].items()}
    before, steps = means["initial"], []
    for step in search["waterfall"]:
        steps.append(f"{step['adds']} {points(means[step['at']] - before)}")
        before = means[step["at"]]
    if search["wordings"] and prompt.instruction == result["instruction"]:
        print(f"Your wording was kept: none of {search['wordings']} others was clearly better.")
    if steps:
        print(f"Step by step from {means['initial']:.3f}: {', then '.join(steps)} points.")
    print(f"Found by {search['calls']:,} task-model calls on dev rows.")


def print_test(result: Mapping[str, Any]) -> None:
    """The score of every tested prompt with its interval."""
    test = result["test"]
    width = max(map(len, test["instructions"]))
    print(f"\nTest, {test['n']} rows, {result['metric']}, answers read by {result['decoding']}:")
    for name, row in test["instructions"].items():
        low, high = row["interval"]["low"], row["interval"]["high"]
        print(f"  {name:<{width}}  {row['mean']:.3f}  (95% interval {low:.3f} to {high:.3f})")
