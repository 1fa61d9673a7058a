"""The loop of every client script: a call as JSON on each line of stdin, its outcome as JSON on a line of stdout.

A line is `{"style", "at", "tool", "arguments", "seconds"}`: which of the script's clients, `{"url", "headers"}` or `{"command", "env"}`,
and after how many seconds that client's own timer ends the call (null: as it comes). Connections stay open for later lines. The
outcome is `{"text", "isError"}`, or `{"error"}` when the client itself failed.

A line with `"insist": N` is an intention instead, on a connection of its own and beside the others: a model that wants one thing,
and asks for it for N seconds, until it reads that it is done. Its outcome is `{"arguments", "read"}`: every text that the model read.
"""

import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack

#: Seconds that a model thinks before it calls again.
THOUGHT = 1


async def serve(connect, insist=None):
    """Answer every line; `connect(stack, style, at)` opens a client and returns how to call a tool with it.

    `insist(asked, model)` has a framework's own agent go after an intention; without it the model calls the tool itself.
    """
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        connected = {}
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked = json.loads(line)
            if asked.get("insist"):
                tasks.create_task(intend(asked, insist or by_itself(connect)))
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
    """A model that wants one call to be done, and reads what each attempt comes to."""

    def __init__(self, asked):
        self.read = []
        self.until = time.monotonic() + asked["insist"]

    async def goes_on(self, text):
        """Read what an attempt came to, and say whether to call again."""
        self.read.append(text)
        if text.startswith("done:") or time.monotonic() > self.until:
            return False
        await asyncio.sleep(THOUGHT)
        return True


async def intend(asked, insist):
    model = Model(asked)
    try:
        await insist(asked, model)
    except Exception as error:
        model.read.append(f"ended by {type(error).__name__}: {error}")
    print(json.dumps({"arguments": asked["arguments"], "read": model.read}), flush=True)


def by_itself(connect):
    """Return how a model without a framework insists: it reads the client's own errors, too."""

    async def insist(asked, model):
        async with AsyncExitStack() as stack:
            call = await connect(stack, asked["style"], asked["at"])
            while await model.goes_on(await attempt(call, asked)):
                pass

    return insist


async def attempt(call, asked):
    try:
        text, _ = await call(asked["tool"], asked["arguments"], None)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return text
