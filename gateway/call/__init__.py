"""One tool call: its request, its judgement, and what is written down about it."""
