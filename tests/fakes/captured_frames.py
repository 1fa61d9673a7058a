"""Frames captured from Codex and Claude Code, with the data that each client adds to `_meta`.

ClientCapture on 21 November 2026 with @openai/codex 0.169.0 (`codex exec`) and @anthropic-ai/claude-code 2.1.330 (`claude -p`), both from npm.
Each ran in a network namespace that holds the loopback alone, with a scripted model and an MCP server of ours on it, over Streamable HTTP
and over stdio. The model asked for the same call twice. Ids, the folder, the commit and the time are made up, of the same shape and length;
the ids of calls came from the scripted model. Codex ran in a git repository with a remote.
"""

from typing import NamedTuple


class ClientCapture(NamedTuple):
    """A client's `initialize` ("" in the revision of 2026-07-28) and its two calls, byte for byte."""

    opening: str
    first: str
    again: str


CAPTURES = {
    "codex-http": ClientCapture(
        '{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{"elicitation":{"form":{},"url":{}}},"clientInfo":{"name":"codex-mcp-client","title":"Codex","version":"0.169.0"}}}',
        '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"_meta":{"callId":"call_000000000000000000000000","x-codex-turn-metadata":{"session_id":"01a1c0de-1000-7001-9001-000000f00d00","thread_id":"01a1c0de-1000-7001-9001-000000f00d00","model":"gpt-5-codex","turn_id":"01a1c0de-1001-7002-9002-000000f00d01","turn_started_at_unix_ms":1795282800000,"thread_source":"user","turn_trigger":"exec","sandbox":"none","sandbox_mode":"danger-full-access","auto_review_enabled":false,"node_repl_auto_review_required":false,"node_repl_disabled":false,"workspaces":{"/home/maria/notes":{"associated_remote_urls":{"origin":"https://git.example.com/acme/notes.git"},"latest_git_commit_hash":"c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ff","has_changes":false}},"codex_version":"0.169.0"},"threadId":"01a1c0de-1000-7001-9001-000000f00d00","sessionId":"01a1c0de-1000-7001-9001-000000f00d00","windowId":"01a1c0de-1000-7001-9001-000000f00d00:0","itemId":"fc_0","progressToken":1},"name":"create_note","arguments":{"text":"hello"}}}',
        '{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"_meta":{"callId":"call_000000000000000000000001","x-codex-turn-metadata":{"session_id":"01a1c0de-1000-7001-9001-000000f00d00","thread_id":"01a1c0de-1000-7001-9001-000000f00d00","model":"gpt-5-codex","turn_id":"01a1c0de-1001-7002-9002-000000f00d01","turn_started_at_unix_ms":1795282800000,"thread_source":"user","turn_trigger":"exec","sandbox":"none","sandbox_mode":"danger-full-access","auto_review_enabled":false,"node_repl_auto_review_required":false,"node_repl_disabled":false,"workspaces":{"/home/maria/notes":{"associated_remote_urls":{"origin":"https://git.example.com/acme/notes.git"},"latest_git_commit_hash":"c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ff","has_changes":false}},"codex_version":"0.169.0"},"threadId":"01a1c0de-1000-7001-9001-000000f00d00","sessionId":"01a1c0de-1000-7001-9001-000000f00d00","windowId":"01a1c0de-1000-7001-9001-000000f00d00:0","itemId":"fc_1","progressToken":2},"name":"create_note","arguments":{"text":"hello"}}}',
    ),
    "codex-stdio": ClientCapture(
        '{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{"experimental":{"codex/auth-change":{}},"elicitation":{"form":{},"url":{}}},"clientInfo":{"name":"codex-mcp-client","title":"Codex","version":"0.169.0"}}}',
        '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"_meta":{"callId":"call_000000000000000000000000","x-codex-turn-metadata":{"session_id":"01a1c0de-1000-7001-9001-000000f00d00","thread_id":"01a1c0de-1000-7001-9001-000000f00d00","model":"gpt-5-codex","turn_id":"01a1c0de-1001-7002-9002-000000f00d01","turn_started_at_unix_ms":1795282800000,"thread_source":"user","turn_trigger":"exec","sandbox":"none","sandbox_mode":"danger-full-access","auto_review_enabled":false,"node_repl_auto_review_required":false,"node_repl_disabled":false,"workspaces":{"/home/maria/notes":{"associated_remote_urls":{"origin":"https://git.example.com/acme/notes.git"},"latest_git_commit_hash":"c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ff","has_changes":false}},"codex_version":"0.169.0"},"threadId":"01a1c0de-1000-7001-9001-000000f00d00","sessionId":"01a1c0de-1000-7001-9001-000000f00d00","windowId":"01a1c0de-1000-7001-9001-000000f00d00:0","itemId":"fc_0","progressToken":1},"name":"create_note","arguments":{"text":"hello"}}}',
        '{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"_meta":{"callId":"call_000000000000000000000001","x-codex-turn-metadata":{"session_id":"01a1c0de-1000-7001-9001-000000f00d00","thread_id":"01a1c0de-1000-7001-9001-000000f00d00","model":"gpt-5-codex","turn_id":"01a1c0de-1001-7002-9002-000000f00d01","turn_started_at_unix_ms":1795282800000,"thread_source":"user","turn_trigger":"exec","sandbox":"none","sandbox_mode":"danger-full-access","auto_review_enabled":false,"node_repl_auto_review_required":false,"node_repl_disabled":false,"workspaces":{"/home/maria/notes":{"associated_remote_urls":{"origin":"https://git.example.com/acme/notes.git"},"latest_git_commit_hash":"c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ff","has_changes":false}},"codex_version":"0.169.0"},"threadId":"01a1c0de-1000-7001-9001-000000f00d00","sessionId":"01a1c0de-1000-7001-9001-000000f00d00","windowId":"01a1c0de-1000-7001-9001-000000f00d00:0","itemId":"fc_1","progressToken":2},"name":"create_note","arguments":{"text":"hello"}}}',
    ),
    "claude-code-http": ClientCapture(
        '{"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"roots":{"listChanged":true},"elicitation":{"form":{},"url":{}}},"clientInfo":{"name":"claude-code","title":"Claude Code","version":"2.1.330","description":"Anthropic\'s agentic coding tool","websiteUrl":"https://claude.com/claude-code"}},"jsonrpc":"2.0","id":0}',
        '{"method":"tools/call","params":{"name":"create_note","arguments":{"text":"hello"},"_meta":{"claudecode/toolUseId":"toolu_000000000000000000000000","progressToken":2}},"jsonrpc":"2.0","id":2}',
        '{"method":"tools/call","params":{"name":"create_note","arguments":{"text":"hello"},"_meta":{"claudecode/toolUseId":"toolu_000000000000000000000001","progressToken":3}},"jsonrpc":"2.0","id":3}',
    ),
    "claude-code-stdio": ClientCapture(
        '{"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"roots":{"listChanged":true},"elicitation":{"form":{},"url":{}}},"clientInfo":{"name":"claude-code","title":"Claude Code","version":"2.1.330","description":"Anthropic\'s agentic coding tool","websiteUrl":"https://claude.com/claude-code"}},"jsonrpc":"2.0","id":0}',
        '{"method":"tools/call","params":{"name":"create_note","arguments":{"text":"hello"},"_meta":{"claudecode/toolUseId":"toolu_000000000000000000000000","progressToken":2}},"jsonrpc":"2.0","id":2}',
        '{"method":"tools/call","params":{"name":"create_note","arguments":{"text":"hello"},"_meta":{"claudecode/toolUseId":"toolu_000000000000000000000001","progressToken":3}},"jsonrpc":"2.0","id":3}',
    ),
    "claude-code-2026": ClientCapture(
        "",
        '{"method":"tools/call","params":{"name":"create_note","arguments":{"text":"hello"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"claude-code","title":"Claude Code","version":"2.1.330","description":"Anthropic\'s agentic coding tool","websiteUrl":"https://claude.com/claude-code"},"io.modelcontextprotocol/clientCapabilities":{"roots":{"listChanged":true},"elicitation":{"form":{},"url":{}}},"claudecode/toolUseId":"toolu_000000000000000000000000","progressToken":1}},"jsonrpc":"2.0","id":1}',
        '{"method":"tools/call","params":{"name":"create_note","arguments":{"text":"hello"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"claude-code","title":"Claude Code","version":"2.1.330","description":"Anthropic\'s agentic coding tool","websiteUrl":"https://claude.com/claude-code"},"io.modelcontextprotocol/clientCapabilities":{"roots":{"listChanged":true},"elicitation":{"form":{},"url":{}}},"claudecode/toolUseId":"toolu_000000000000000000000001","progressToken":2}},"jsonrpc":"2.0","id":2}',
    ),
}
