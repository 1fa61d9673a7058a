"""The MCP gateway: its path for tool calls, policy, classification and upstreams."""
