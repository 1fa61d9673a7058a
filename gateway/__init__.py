"""The MCP gateway: its path for tool calls, policy, classification and upstreams."""

#: As in pyproject.toml; to read it from the installed package takes as long as ten modules.
VERSION = "0.1.0"
