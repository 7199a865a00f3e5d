"""Most tokens of an answer at the endpoint, by role; apart, so that a peer's program need not load the server."""

TASK_TOKENS, PROPOSER_TOKENS = 16, 128
