"""An HTTP/1.1 client for MCP servers: pooled connections without tasks, with one exchange at a time on each."""
