"""Wire formats: JSON-RPC frames, server-sent events, and the revisions of MCP."""
