"""Train a small language model to rewrite prompts, by reinforcement learning, and measure honestly what it gains."""
