"""The loop of every client script: reads a call as JSON per line of stdin, writes its outcome as JSON per line of stdout.

A line is `{"style", "at", "tool", "arguments", "seconds"}`: the script's mode; `{"url", "headers"}` or `{"command", "env"}`;
and the client's own timeout in seconds (null: its default). Connections stay open for later lines. The outcome is
`{"text", "isError"}`, or `{"error"}` if the client itself failed.

A line with `"retry_for": N` plays a model on its own connection, concurrently: the model repeats one call for up to N
seconds, until it reads that the call is done. Its outcome is `{"arguments", "read"}`: every text that the model read.
"""

import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack

#: Seconds that a model thinks before it calls again.
THOUGHT = 1


async def serve(connect, run_agent=None):
    """Answer every line; `connect(stack, style, at)` opens a client and returns a function that calls a tool.

    `run_agent(asked, model)` runs the model in a framework's own agent; without it the model calls the tool itself.
    """
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        connected = {}
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked = json.loads(line)
            if asked.get("retry_for"):
                tasks.create_task(run_model(asked, run_agent or without_framework(connect)))
                continue
            way = json.dumps([asked["style"], asked["at"]])
            try:
                if way not in connected:
                    connected[way] = await connect(stack, asked["style"], asked["at"])
                text, is_error = await connected[way](asked["tool"], asked["arguments"], asked["seconds"])
                outcome = {"text": text, "isError": bool(is_error)}
            except Exception as error:
                outcome = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(outcome), flush=True)


class Model:
    """A model that repeats one call until it is done, and reads the result of each attempt."""

    def __init__(self, asked):
        self.read = []
        self.until = time.monotonic() + asked["retry_for"]

    async def should_continue(self, text):
        """Read the result of an attempt; return whether to call again."""
        self.read.append(text)
        if text.startswith("done:") or time.monotonic() > self.until:
            return False
        await asyncio.sleep(THOUGHT)
        return True


async def run_model(asked, run_agent):
    model = Model(asked)
    try:
        await run_agent(asked, model)
    except Exception as error:
        model.read.append(f"ended by {type(error).__name__}: {error}")
    print(json.dumps({"arguments": asked["arguments"], "read": model.read}), flush=True)


def without_framework(connect):
    """Return the function that runs a model without a framework; it reads the client's own errors, too."""

    async def run_agent(asked, model):
        async with AsyncExitStack() as stack:
            call = await connect(stack, asked["style"], asked["at"])
            while await model.should_continue(await attempt(call, asked)):
                pass

    return run_agent


async def attempt(call, asked):
    try:
        text, _ = await call(asked["tool"], asked["arguments"], None)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return text
