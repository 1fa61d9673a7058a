"""The MCP side: frames, policy, classification, upstreams, and the path of one tool call."""
