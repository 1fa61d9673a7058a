"""A fake Slack: the Web API and Socket Mode for an unchanged slack-sdk, with Slack's limits and users.

Messages, modals and ephemerals are kept as Slack would show them; users click and submit, and a test awaits the
effect. Requests that Slack would refuse are refused with Slack's own error codes.
"""

import asyncio
import itertools
import json
import time
from collections import deque
from dataclasses import dataclass, field
from urllib.parse import urlencode

from aiohttp import WSMsgType, web
from slack_sdk.signature import SignatureVerifier

from hang import HANG

TRIGGER_SECONDS = 3
BLOCKS = {"section", "header", "rich_text", "context", "actions", "divider", "input", "image"}
ELEMENTS = {"button", "plain_text_input", "static_select"}
RICH = {"rich_text_section", "rich_text_preformatted", "rich_text_list", "rich_text_quote"}


class Refused(Exception):
    """Slack answers `ok: false` with this error."""


@dataclass
class Message:
    channel: str
    ts: str
    text: str
    blocks: list
    metadata: dict | None = None
    revisions: list = field(default_factory=list)


@dataclass
class Modal:
    id: str
    user: str
    view: dict


class FakeSlack:
    """Use as `async with FakeSlack() as slack`; `slack.api_url` is the base_url for AsyncWebClient."""

    def __init__(
        self,
        *,
        team: str = "T0TEAM",
        channels=("C0APPROVALS",),
        users=("U01ALICE", "U02BOB", "U09EVE"),
        clock=time.time,
    ):
        self.team = team
        self.channels = set(channels)
        self.users = set(users)
        self.clock = clock
        self.messages: list[Message] = []
        self.ephemerals: list[dict] = []
        self.modals: list[Modal] = []
        self.calls: list[str] = []
        self.acks: dict[str, dict] = {}
        self.failures: dict[str, deque] = {}
        self._triggers: dict[str, tuple[float, str]] = {}
        self.sockets: list[web.WebSocketResponse] = []
        self._numbers = itertools.count(1)
        self._happened = asyncio.Condition()

    async def __aenter__(self) -> "FakeSlack":
        app = web.Application()
        app.router.add_post("/api/{method}", self._api)
        app.router.add_get("/socket", self._socket)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        self.api_url = f"http://127.0.0.1:{self.port}/api/"
        return self

    async def __aexit__(self, *_) -> None:
        for socket in self.sockets:
            await socket.close()
        await self._runner.cleanup()

    # Waiting

    async def until(self, condition, seconds: float | None = HANG):
        """Wait until *condition()* is true and return its value."""
        async with asyncio.timeout(seconds), self._happened:
            while not (value := condition()):
                await self._happened.wait()
            return value

    async def next_message(self, count: int = 1) -> Message:
        return (await self.until(lambda: self.messages[count - 1 :]))[0]

    async def shows(self, message: Message, text: str) -> Message:
        """Wait until a message shows this text."""
        await self.until(lambda: text in text_of(message.blocks) + message.text)
        return message

    async def next_modal(self, count: int = 1) -> Modal:
        return (await self.until(lambda: self.modals[count - 1 :]))[0]

    async def next_ephemeral(self, count: int = 1) -> dict:
        return (await self.until(lambda: self.ephemerals[count - 1 :]))[0]

    async def connected(self, count: int = 1) -> None:
        await self.until(lambda: len(self.sockets) >= count)

    def fail(self, method: str, *answers) -> None:
        """Let the next calls of a method fail: an error code, or an HTTP status."""
        self.failures.setdefault(method, deque()).extend(answers)

    async def _tell(self) -> None:
        async with self._happened:
            self._happened.notify_all()

    # The Web API.

    async def _api(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        given = await self._arguments(request)
        self.calls.append(method)
        try:
            if planned := self.failures.get(method):
                answer = planned.popleft()
                if isinstance(answer, int):
                    headers = {"Retry-After": "0"} if answer == 429 else {}
                    return web.json_response(
                        {"ok": False, "error": "ratelimited"}, status=answer, headers=headers
                    )
                raise Refused(answer)
            if not request.headers.get("Authorization", "").startswith(("Bearer xoxb-", "Bearer xapp-")):
                raise Refused("invalid_auth")
            served = getattr(self, "_" + method.replace(".", "_"), None)
            if served is None:
                raise Refused("unknown_method")
            answer = served(given)
        except Refused as refused:
            return web.json_response({"ok": False, "error": str(refused)})
        finally:
            await self._tell()
        return web.json_response({"ok": True, **answer})

    async def _arguments(self, request: web.Request) -> dict:
        if request.content_type == "application/json":
            return await request.json()
        form = dict(await request.post())
        return {name: _parsed(value) for name, value in form.items()}

    def _auth_test(self, _) -> dict:
        return {"team_id": self.team, "user_id": "U0BOT", "bot_id": "B0BOT"}

    def _chat_postMessage(self, given: dict) -> dict:
        self._check_channel(given)
        check_message(given)
        message = Message(
            given["channel"],
            f"{1_800_000_000 + next(self._numbers)}.000100",
            given["text"],
            given.get("blocks", []),
            given.get("metadata"),
        )
        self.messages.append(message)
        return {"channel": message.channel, "ts": message.ts}

    def _chat_update(self, given: dict) -> dict:
        self._check_channel(given)
        message = next(
            (one for one in self.messages if (one.channel, one.ts) == (given["channel"], given["ts"])), None
        )
        if message is None:
            raise Refused("message_not_found")
        check_message(given)
        message.revisions.append((message.text, message.blocks))
        message.text, message.blocks = given["text"], given.get("blocks", [])
        return {"channel": message.channel, "ts": message.ts}

    def _chat_postEphemeral(self, given: dict) -> dict:
        self._check_channel(given)
        if given["user"] not in self.users:
            raise Refused("user_not_in_channel")
        self.ephemerals.append(given)
        return {"message_ts": "1.0"}

    def _check_channel(self, given: dict) -> None:
        if given.get("channel") not in self.channels:
            raise Refused("channel_not_found")

    def _views_open(self, given: dict) -> dict:
        at, user = self._triggers.pop(given.get("trigger_id", ""), (0.0, ""))
        if not user:
            raise Refused("invalid_trigger_id")
        if self.clock() - at > TRIGGER_SECONDS:
            raise Refused("expired_trigger_id")
        check_view(given["view"])
        modal = Modal(f"V{next(self._numbers)}", user, given["view"])
        self.modals.append(modal)
        return {"view": {**modal.view, "id": modal.id}}

    def _apps_connections_open(self, _) -> dict:
        return {"url": f"ws://127.0.0.1:{self.port}/socket"}

    # Socket Mode.

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json(
            {
                "type": "hello",
                "num_connections": len(self.sockets) + 1,
                "connection_info": {"app_id": "A0APP"},
            }
        )
        self.sockets.append(socket)
        await self._tell()
        async for frame in socket:
            if frame.type is WSMsgType.TEXT and frame.data.startswith("{"):
                ack = json.loads(frame.data)
                self.acks[ack["envelope_id"]] = ack.get("payload") or {}
                await self._tell()
        self.sockets.remove(socket)
        return socket

    async def disconnect(self) -> None:
        """Ask the client to reconnect on a new socket, as Slack does every few hours."""
        [socket] = self.sockets
        await socket.send_json({"type": "disconnect", "reason": "refresh_requested"})

    async def deliver(self, payload: dict, envelope: str | None = None) -> dict:
        """Send a payload to ONE socket and return the payload of its acknowledgement."""
        await self.connected()
        envelope = envelope or f"E{next(self._numbers)}"
        self.acks.pop(envelope, None)
        await self.sockets[0].send_json(
            {
                "type": "interactive",
                "envelope_id": envelope,
                "payload": payload,
                "accepts_response_payload": True,
            }
        )
        await self.until(lambda: envelope in self.acks)
        return self.acks[envelope]

    # Users

    def click_payload(self, user: str, message: Message, action: str, *, team: str | None = None) -> dict:
        button = next(element for element in buttons(message.blocks) if element["action_id"] == action)
        trigger = f"{next(self._numbers)}.{self.team}"
        self._triggers[trigger] = (self.clock(), user)
        where = {"id": message.channel, "name": "approvals"}
        return {
            "type": "block_actions", "api_app_id": "A0APP", "team": {"id": team or self.team},
            "user": {"id": user, "username": user.lower(), "team_id": team or self.team},
            "container": {"type": "message", "message_ts": message.ts, "channel_id": message.channel},
            "channel": where, "trigger_id": trigger, "response_url": "https://hooks.slack.com/actions/x",
            "message": {"ts": message.ts, "text": message.text, "blocks": message.blocks, "metadata": message.metadata},
            "actions": [{"type": "button", "action_id": action, "block_id": "decide", "value": button.get("value", ""), "action_ts": "1.0"}],
        }  # fmt: skip

    def submit_payload(self, modal: Modal, *, team: str | None = None, **values: str) -> dict:
        state = {name: {name: {"type": "plain_text_input", "value": value}} for name, value in values.items()}
        view = {**modal.view, "id": modal.id, "state": {"values": state}}
        return {
            "type": "view_submission", "api_app_id": "A0APP", "team": {"id": team or self.team},
            "user": {"id": modal.user, "team_id": team or self.team}, "view": view,
        }  # fmt: skip

    async def click(self, user: str, message: Message, action: str, *, team: str | None = None) -> dict:
        return await self.deliver(self.click_payload(user, message, action, team=team))

    async def submit(self, modal: Modal, **values: str) -> dict:
        return await self.deliver(self.submit_payload(modal, **values))

    def signed(
        self, payload: dict, secret: str, *, at: float | None = None, body: bytes = b""
    ) -> tuple[dict, bytes]:
        """Return headers and body of the payload, or the body as it is, over HTTP, as Slack signs it."""
        body = body or urlencode({"payload": json.dumps(payload)}).encode()
        stamp = str(int(self.clock() if at is None else at))
        signature = SignatureVerifier(secret).generate_signature(timestamp=stamp, body=body)
        return {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": signature}, body


def _parsed(value: str):
    return json.loads(value) if isinstance(value, str) and value[:1] in "[{" else value


# Slack's limits.


def check_message(given: dict) -> None:
    if not given.get("text") and not given.get("blocks"):
        raise Refused("no_text")
    if len(given.get("text", "")) > 40_000:
        raise Refused("msg_too_long")
    blocks = given.get("blocks", [])
    if len(blocks) > 50:
        raise Refused("invalid_blocks")
    if len(json.dumps(blocks, ensure_ascii=False)) > 13_200:
        raise Refused("msg_blocks_too_long")
    check_blocks(blocks)


def check_view(view: dict) -> None:
    limits(view["type"] == "modal", len(view["blocks"]) <= 100, len(view.get("private_metadata", "")) <= 3000)
    for part in ("title", "submit", "close"):
        check_text(view[part], 24)
    check_blocks(view["blocks"])


def limits(*held: bool) -> None:
    if not all(held):
        raise Refused("invalid_blocks")


def check_text(text: dict, longest: int) -> None:
    limits(text["type"] in {"plain_text", "mrkdwn"}, 0 < len(text["text"]) <= longest)


def check_blocks(blocks: list) -> None:
    named = [block["block_id"] for block in blocks if block.get("block_id")]
    limits(len(named) == len(set(named)), all(len(name) <= 255 for name in named))
    for block in blocks:
        limits(block["type"] in BLOCKS)
        _CHECKS.get(block["type"], lambda _: None)(block)


def _section(block: dict) -> None:
    limits("text" in block or "fields" in block, len(block.get("fields", [])) <= 10)
    for text in block.get("fields", []):
        check_text(text, 2000)
    if "text" in block:
        check_text(block["text"], 3000)


def _context(block: dict) -> None:
    limits(0 < len(block["elements"]) <= 10)
    for text in block["elements"]:
        check_text(text, 3000)


def _actions(block: dict) -> None:
    elements = block["elements"]
    limits(0 < len(elements) <= 25, len({one["action_id"] for one in elements}) == len(elements))
    for element in elements:
        limits(
            element["type"] in ELEMENTS,
            len(element["action_id"]) <= 255,
            len(element.get("value", "")) <= 2000,
        )
        check_text(element["text"], 75)
        for part, longest in (("title", 100), ("text", 300), ("confirm", 30), ("deny", 30)):
            if "confirm" in element:
                check_text(element["confirm"][part], longest)


def _input(block: dict) -> None:
    check_text(block["label"], 2000)
    limits(block["element"]["type"] in ELEMENTS, block["element"].get("max_length", 1) <= 3000)


def _rich_text(block: dict) -> None:
    limits(len(block["elements"]) > 0)
    for element in block["elements"]:
        limits(
            element["type"] in RICH,
            all(part["type"] in {"text", "link", "user", "emoji"} for part in element["elements"]),
        )
        limits(all(part.get("text") for part in element["elements"] if part["type"] == "text"))


_CHECKS = {
    "section": _section, "context": _context, "actions": _actions, "input": _input, "rich_text": _rich_text,
    "header": lambda block: check_text(block["text"], 150),
}  # fmt: skip


# Visible text


def buttons(blocks: list) -> list[dict]:
    return [element for block in blocks if block["type"] == "actions" for element in block["elements"]]


def buttons_of(blocks: list) -> list[str]:
    return [element["action_id"] for element in buttons(blocks)]


def text_of(value) -> str:
    """Return all visible text of blocks."""
    if isinstance(value, list):
        return "\n".join(filter(None, map(text_of, value)))
    if isinstance(value, dict):
        own = value["text"] if isinstance(value.get("text"), str) else ""
        return "\n".join(
            filter(
                None,
                [
                    own,
                    *(
                        text_of(part)
                        for name, part in value.items()
                        if isinstance(part, dict | list) and name != "style"
                    ),
                ],
            )
        )
    return ""
