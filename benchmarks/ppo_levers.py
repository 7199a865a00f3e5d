"""What each lever of the PPO update brings: our trainer whole, then with one lever off at a time, then with all off.

    python benchmarks/ppo_levers.py
    python benchmarks/ppo_levers.py --dry      one layer and few tokens, to try the script

The work is that of `ppo_step.py`: 32 rollouts of 48 tokens, 4 PPO epochs, a reward that costs nothing. All variants
compute the same numbers up to rounding; `learning_curves.py` shows it over whole runs. Each runs in a process of its
own; the first update, which also warms up, is not counted where there are more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable

import ppo_step


def packed_trunk() -> None:
    """Forward and gradients by transformers, PEFT and autograd, on padded rows."""
    from prewrite.lm import lora

    lora.computes = lambda model: False


def shared_prompt() -> None:
    """Each rollout brings its own copy of the prompt."""
    from prewrite.lm import packing
    from prewrite.train import ppo

    def copies(prompts, rows, *rest):
        return packing.pad_prompts([prompts[row] for row in rows], range(len(rows)), *rest)

    ppo.pad_prompts = copies


def lean_decoding() -> None:
    """Tokens are sampled from transformers' forward pass and growing cache."""
    from prewrite.lm import sampling, trunk

    sampling.open_trunk = lambda model, rows=None: trunk.Transformers(model)


def scores_from_sampling() -> None:
    """Old log-probabilities and values come from a forward pass, not from sampling."""
    from prewrite.rewriter import policy

    policy.runs_fast = lambda model: False


def chunked_logits() -> None:
    """The logits of all completion tokens at once."""
    from prewrite.rewriter import policy

    policy.LOGIT_CHUNK = 10**9


LEVERS: dict[str, Callable[[], None]] = {
    "packed trunk": packed_trunk,
    "shared prompt": shared_prompt,
    "lean decoding": lean_decoding,
    "scores from sampling": scores_from_sampling,
    "chunked logits": chunked_logits,
}


def run_variant(off: list[str], dry: bool, updates: int) -> dict:
    """Our trainer in this process with some levers off."""
    for name in off:
        LEVERS[name]()
    found = ppo_step.run_part("ours", dry, updates)
    return found | {"results": found["results"][1:] or found["results"]}


def main() -> None:
    """Run the variants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument(
        "--levers", nargs="+", choices=list(LEVERS), default=list(LEVERS), help="switch off only these"
    )
    parser.add_argument("--dry", action="store_true", help="one layer and few tokens, to try the script")
    parser.add_argument("--off", nargs="*", choices=list(LEVERS), help=argparse.SUPPRESS)  # one variant, as JSON
    args = parser.parse_args()
    if args.off is not None:
        print(json.dumps(run_variant(args.off, args.dry, args.updates)))
        return
    variants = {"all levers": []} | {f"without {name}": [name] for name in args.levers}
    if len(args.levers) > 1:
        variants["without any"] = args.levers
    print("| variant | rollout s | reference s | update s | total s | of whole | peak GB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    whole = 0.0
    for title, off in variants.items():
        command = [sys.executable, __file__, "--updates", str(args.updates), "--off", *off]
        command += ["--dry"] if args.dry else []
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found = json.loads(output.splitlines()[-1])
        phases = [
            statistics.median(result["wall"].get(phase, 0.0) for result in found["results"])
            for phase in ("rollout", "reference", "update")
        ]
        total = sum(phases)
        whole = whole or total
        cells = " | ".join(f"{seconds:.1f}" for seconds in (*phases, total))
        print(f"| {title} | {cells} | {total / whole:.2f} | {found['peak_mb'] / 1e3:.1f} |", flush=True)


if __name__ == "__main__":
    main()
