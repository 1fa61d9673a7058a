"""The loop of every client script: a call as JSON on each line of stdin, its outcome as JSON on a line of stdout.

A line is `{"style", "at", "tool", "arguments", "seconds"}`: which of the script's clients, `{"url"}` or `{"command", "env"}`, and
after how many seconds that client's own timer ends the call (null: as it comes). Connections stay open for later lines. The
outcome is `{"text", "isError"}`, or `{"error"}` when the client itself failed.
"""

import asyncio
import json
import sys
from contextlib import AsyncExitStack


async def serve(connect):
    """Answer every line; `connect(stack, style, at)` opens a client and returns how to call a tool with it."""
    async with AsyncExitStack() as stack:
        connected = {}
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked = json.loads(line)
            way = json.dumps([asked["style"], asked["at"]])
            try:
                if way not in connected:
                    connected[way] = await connect(stack, asked["style"], asked["at"])
                text, is_error = await connected[way](asked["tool"], asked["arguments"], asked["seconds"])
                outcome = {"text": text, "isError": bool(is_error)}
            except Exception as error:
                outcome = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(outcome), flush=True)
