"""A lost session is reopened with the stored initialize; a failure says that nothing was sent."""

import json

import pytest

from gateway.errors import ConnectionLostError, NotSentError
from gateway.upstreams import lifecycle
from gateway.upstreams.reply import Reply, frame_reply
from gateway.wire import frames

OPENING = b'{"protocolVersion":"2025-11-25","capabilities":{"elicitation":{}},"clientInfo":{"name":"a"}}'
LOST = {"mcp-session-id": "s1", "last-event-id": "e1", "mcp-protocol-version": "2025-06-18"}


class Server:
    """Answers initialize with *answer*, and records the frames."""

    def __init__(self, answer):
        self.answer = answer
        self.seen = []

    async def send(self, verb, body, headers):
        frame = json.loads(body) if body else {}
        self.seen.append((verb, frame.get("method"), frame.get("params"), dict(headers)))
        if frame.get("method") != "initialize":
            return Reply(status=202)
        if isinstance(self.answer, Exception):
            raise self.answer
        return frame_reply(self.answer, headers={"Mcp-Session-Id": "s2"})


async def test_a_lost_session_is_reopened_with_its_clients_params():
    server = Server(frames.build_result("okayed", {"protocolVersion": "2025-11-25"}))
    renewed = await lifecycle.reopen_session(server.send, OPENING, LOST)
    assert renewed == {"mcp-session-id": "s2", "mcp-protocol-version": "2025-06-18"}
    assert server.seen == [
        ("POST", "initialize", json.loads(OPENING), {}),
        ("POST", "notifications/initialized", None, renewed),
    ]


@pytest.mark.parametrize(
    ("answer", "raised"),
    [
        (frames.build_error("okayed", -32603, "no"), lifecycle.SessionRefusedError),
        (ConnectionLostError(), NotSentError),
        (NotSentError(), NotSentError),
    ],
)
async def test_a_session_that_cannot_be_reopened_says_that_nothing_was_sent(answer, raised):
    with pytest.raises(NotSentError) as failure:
        await lifecycle.reopen_session(Server(answer).send, OPENING, LOST)
    assert failure.type is raised


async def test_a_session_that_was_half_opened_is_closed():
    server = Server(frames.build_error("okayed", -32603, "no"))
    with pytest.raises(lifecycle.SessionRefusedError):
        await lifecycle.reopen_session(server.send, OPENING, LOST)
    assert server.seen[-1] == ("DELETE", None, None, {"mcp-session-id": "s2"})
