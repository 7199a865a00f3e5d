"""A model for the endpoint that answers by a rule: no weights, so that a whole benchmark runs in seconds."""

import re

from benchmarks.peers.speaker import Written


class ScriptedSpeaker:
    """Reads `good` in the last line with text as positive; without a worked example it answers in a sentence.

    Its tokens are words. What it writes as a proposer is numbered by the seed.
    """

    context = 500.0

    def __init__(self):
        self.batches = []

    def render(self, messages):
        return "\n".join(f"{message['role']}: {message['content']}" for message in messages)

    def lengths(self, prompts):
        return [len(prompt.split()) for prompt in prompts]

    def answers(self, prompts, *, limit, temperature, seeds):
        self.batches.append(len(prompts))
        texts = [
            f"<prompt>Is the review good? {seed}</prompt>" if temperature else self.label(prompt)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        return [Written(text, min(limit, len(text.split()))) for text in texts]

    def label(self, prompt):
        words = re.findall(r"thing \d+ is (\w+)", prompt)
        label = "positive" if words and words[-1] == "good" else "negative"
        return label if len(words) > 1 else f"It could be positive, or negative: {label}?"
