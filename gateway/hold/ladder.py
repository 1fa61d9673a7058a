"""How a held call is shown to the client that waits for it: the ladder, as tables and pure functions.

The manner is chosen once: a task for a client that asked for one, else a wait on the open connection, with a sign of
life every beat, for as long as this client can bear. When that is over, a client of the revision of 2026-07-28 is asked to
come again with a sealed state (a round, which its SDK does without the model noticing); every other client, and that one
after its last round, gets the WAITING result, after which the same call asked again collects the decision.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import msgspec

from approvals import lifecycle
from approvals.model import HeldCall, State
from gateway.call.hold_settings import ClientRule, TaskOffer
from gateway.wire import frames, protocol, sse

#: Seconds between signs of life. The shortest byte-silence limit measured among clients is 300 s; proxies in
#: between often allow 60 s, some 30 s.
BEAT = 15.0
#: Seconds for which an answer may still be one JSON frame with its own HTTP status; then it becomes a stream.
#: A client that asks for progress gets its stream at once.
QUIET = 10.0
#: What the ids of requests of ours to clients begin with.
QUESTION = "okayed-"
#: The last round; the common SDKs give up after ten.
LAST_ROUND = 9
#: Milliseconds after which a client whose stream was cut comes back for the rest.
RETRY = 5000

MINUTE, HOUR = 60.0, 3600.0
Value = TypeVar("Value")
#: Seconds a connection is held open for a client that nothing is known of: below the 60 s after which the most
#: common SDK gives a call up.
PATIENCE = 50.0
#: How long known clients bear an open call that shows signs of life, by the name they give themselves. It is believed
#: for patience only. What each does with its own timer was measured or is documented: see docs/protocol.md.
CLIENTS: Mapping[str, float] = {
    "claude-code*": 24 * HOUR,
    "visual studio code*": 24 * HOUR,
    "mcp": 4 * HOUR,  # the Python SDK, and what is built on it, when they are not told another name
    "fastmcp*": 4 * HOUR,
    "opencode*": 580.0,
    "qwen-cli-mcp-client*": 580.0,
    "gemini-cli-mcp-client*": 580.0,
    "codex*": 280.0,
    "cursor*": 280.0,
    "claude-ai*": PATIENCE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHold:
    """How one client is held."""

    #: Seconds a connection is kept open for it at most.
    wait: float
    #: Whether what was learned of it may shorten that.
    learns: bool
    as_result: bool


def client(name: str, hold_for: float | None, rules: Mapping[str, ClientRule]) -> ClientHold:
    """Return how the client of this name is held.

    *hold_for* is the config's word for all clients (None is `auto`), *rules* its own table, which goes before ours.
    """
    names = (name.lower(), behind_a_relay(name).lower())
    said = _first(names, rules) or ClientRule()
    set_to = said.wait or hold_for
    wait = set_to or _first(names, CLIENTS) or PATIENCE
    return ClientHold(wait=wait, learns=set_to is None, as_result=said.as_result)


def _first(names: Iterable[str], table: Mapping[str, Value]) -> Value | None:
    """Return what the first pattern that fits one of the names stands for."""
    return next(
        (
            value
            for pattern, value in table.items()
            if any(fnmatchcase(one, pattern.lower()) for one in names)
        ),
        None,
    )


def behind_a_relay(client: str) -> str:
    """Return the client's own name, without the relay that added its name to it (`mcp (via mcp-remote 0.15.1)`).

    mcp-remote has no timer of its own, so the client behind it decides how long a call may take.
    """
    return client.partition(" (via ")[0]


class AnswerMode(Enum):
    """How the client is answered while people decide."""

    WAIT = "on the open connection, and in rounds where the revision has them"
    TASK = "with a task of the extension of 2026-07-28"
    TASK_2025 = "with a task of the revision of 2025-11-25"


def manner(call: frames.CallFrame, era: protocol.Era, tasks: TaskOffer) -> AnswerMode:
    """Return how the client that sent *call* is answered, should it be held."""
    if era is protocol.Era.MODERN:
        offered = tasks is not TaskOffer.OFF and protocol.declares_tasks(call.params)
        return AnswerMode.TASK if offered else AnswerMode.WAIT
    return AnswerMode.TASK_2025 if tasks is TaskOffer.ALL and "task" in call.params else AnswerMode.WAIT


class Rung(Enum):
    """What to do next for a client that waits."""

    WAIT = "keep the connection open"
    RUN = "forward it, now"
    TELL = "give the final answer"
    ROUND = "ask it to come again, with a sealed state"
    LATER = "tell it to ask again"


@dataclass(frozen=True, slots=True)
class Step:
    """The next rung, and how many seconds at most until the next look: for WAIT, and for RUN when it fails."""

    rung: Rung
    seconds: float = 0.0


def step(
    call: HeldCall,
    now: float,
    give_up_at: float,
    *,
    rounds_left: int = 0,
    cancelled: bool = False,
    tried: bool = False,
) -> Step:
    """Return what to do for one waiting client, given the call as it is. A cancelled request never starts the run.

    *tried* says that the call could not be claimed for this client a moment ago, so it is not tried past *give_up_at*.
    """
    if call.state in lifecycle.SETTLED:
        return Step(Rung.TELL)
    if cancelled:
        return Step(Rung.LATER)
    seconds = max(0.0, min(BEAT, give_up_at - now))
    if call.state is State.APPROVED and (seconds or not tried):
        return Step(Rung.RUN, seconds)
    if not seconds:
        return Step(Rung.ROUND if rounds_left > 0 else Rung.LATER)
    return Step(Rung.WAIT, seconds)


def sign_of_life(call: HeldCall, beats: int, token: frames.Id | None) -> bytes:
    """Return what is sent while nothing happens: a comment, and progress for a client that asked for it.

    Progress must increase (MCP, utilities/progress) and the server's own may follow, so ours grows by millionths.
    """
    if token is None:
        return sse.comment("waiting for approval")
    params = {"progressToken": token, "progress": beats * 1e-6, "message": f"Waiting for approval {call.id}"}
    return sse.event(frames.notification("notifications/progress", params))


def link(call: HeldCall, url: str) -> Mapping[str, Any]:
    """Return the request that shows the requester where people decide; that it was opened approves nothing."""
    message = f"Approval {call.id} is needed. It is decided here by those who may."
    params = {"mode": "url", "message": message, "url": f"{url.rstrip('/')}/calls/{call.id}"}
    return {"method": "elicitation/create", "params": params}


def link_2025(call: HeldCall, url: str) -> bytes:
    """Return the same as an event: a request on the open stream (2025-11-25)."""
    request = link(call, url)
    params = {**request["params"], "elicitationId": call.id}
    asked = {"jsonrpc": "2.0", "id": QUESTION + call.id, "method": request["method"], "params": params}
    return sse.event(msgspec.json.encode(asked))


def link_is_over(call: HeldCall) -> bytes:
    """Return the event that says that the link need not be shown any more (2025-11-25)."""
    return sse.event(frames.notification("notifications/elicitation/complete", {"elicitationId": call.id}))


def answers_link(frame: frames.Frame) -> bool:
    """Say whether this is a client's answer to such a request: it says nothing of the call, and goes nowhere."""
    return isinstance(frame, frames.Response) and str(frame.id).startswith(QUESTION)
