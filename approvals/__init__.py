"""People, held calls and durability: who may say yes to a tool call, and the proof that it was said.

Knows nothing of MCP's wires; `gateway` builds on this package, never the reverse.
"""
