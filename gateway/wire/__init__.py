"""The bytes on the wire: JSON-RPC frames, server-sent events, and the revisions of MCP."""
