"""One tool call: its request, its judgement and its audit events."""
