"""How the endpoint is asked, by role; apart, so that a peer's program need not load the server."""

TASK_TOKENS, PROPOSER_TOKENS = 16, 128
"""Most tokens of an answer."""
PROPOSER_TEMPERATURE = 0.7
"""As prewrite's own rewriter samples below 1B parameters: at 1 so small a model writes no sentences."""
