"""A client of HTTP/1.1 for MCP servers: connections without a task, pooled, with one exchange at a time on each."""
