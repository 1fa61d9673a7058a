"""The API's client, for reviewing from a terminal: as the approver whose token is in OKAYED_TOKEN."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiohttp

from gateway.config.addresses import is_http_url
from gateway.errors import UserError
from gateway.wire import sse

#: What an address that is a Unix socket begins with, and the name by which requests over one call the gateway.
UNIX = "unix:"
LOCAL = "http://localhost"
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=None)


class RequestRefused(UserError):
    """The gateway did not do what was asked; the message says why."""


class ApiClient:
    """One approver's view of a running gateway."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self._base = LOCAL if url.startswith(UNIX) else url.rstrip("/")

    async def calls(self, state: str) -> list[dict[str, Any]]:
        """Return all calls in *state*, newest first."""
        found: list[dict[str, Any]] = []
        before = ""
        while True:
            page = await self._ask("GET", f"/api/v1/calls?state={state}&limit=200{before}")
            found += page["calls"]
            if page["next"] is None:
                return found
            before = f"&before={page['next']}"

    async def call(self, call_id: str) -> dict[str, Any]:
        """Return one call."""
        return await self._ask("GET", f"/api/v1/calls/{call_id}")

    async def reveal(self, call_id: str) -> dict[str, Any]:
        """Return one call with its secrets; the audit trail records who looked."""
        return await self._ask("POST", f"/api/v1/calls/{call_id}/reveal")

    async def approve(self, call_id: str, reason: str) -> dict[str, Any]:
        """Approve the call as it is held now."""
        body = {"digest": (await self.call(call_id))["digest"], "reason": reason}
        return await self._ask("POST", f"/api/v1/calls/{call_id}/approve", body)

    async def deny(self, call_id: str, reason: str) -> dict[str, Any]:
        """Deny the call."""
        return await self._ask("POST", f"/api/v1/calls/{call_id}/deny", {"reason": reason})

    async def give_up(self, call_id: str, reason: str) -> dict[str, Any]:
        """Stop waiting for the server's answer to a running call."""
        return await self._ask("POST", f"/api/v1/calls/{call_id}/give-up", {"reason": reason})

    async def accept(self, server: str, tool: str) -> list[str]:
        """Accept the definitions that the tools of a server have now; returns which were changed."""
        answer = await self._ask("POST", "/api/v1/tools/accept", {"server": server, "tool": tool})
        return list(answer["tools"])

    async def watch(self, show: Callable[[list[dict[str, Any]]], None]) -> None:
        """Show the waiting calls now and after every change, until interrupted."""
        with self._reached():
            async with self._session.get(f"{self._base}/api/v1/events") as stream:
                await _read_json(stream)
                show(await self.calls("pending"))
                async for event in sse.events(stream.content.iter_any()):
                    if event.data:
                        show(await self.calls("pending"))

    async def _ask(self, verb: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        with self._reached():
            async with self._session.request(verb, self._base + path, json=body) as answer:
                return await _read_json(answer)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except aiohttp.ClientError as error:
            raise RequestRefused(f"No gateway answers at {self._url}; start one with: okayed run") from error


async def _read_json(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    if answer.content_type == "text/event-stream" and answer.status == 200:
        return {}
    said: Any = await answer.json() if answer.content_type == "application/json" else {}
    if answer.status == 200:
        return dict(said)
    if answer.status == 401:
        raise RequestRefused(
            "Set OKAYED_TOKEN to your approver's token; make one with: okayed token approver NAME"
        )
    raise RequestRefused(
        str(said.get("error") or said.get("message") or f"The gateway answered HTTP {answer.status}.")
    )


@asynccontextmanager
async def connect(url: str, token: str) -> AsyncIterator[ApiClient]:
    """Connect to the gateway whose inbox is at *url*: `http(s)://...`, or `unix:/path`.

    A token that was read from a file may end in a newline.
    """
    if not (url.startswith(UNIX) or is_http_url(url)):
        raise RequestRefused(
            f"{url} is no address of an inbox; in OKAYED_URL write one such as http://127.0.0.1:8809"
        )
    connector = aiohttp.UnixConnector(url.removeprefix(UNIX)) if url.startswith(UNIX) else None
    secret = token.strip()
    headers = {"User-Agent": "okayed/cli"} | ({"Authorization": f"Bearer {secret}"} if secret else {})
    async with aiohttp.ClientSession(headers=headers, timeout=TIMEOUT, connector=connector) as session:
        yield ApiClient(session, url)
