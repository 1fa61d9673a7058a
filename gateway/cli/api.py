"""The client of the inbox's API: reviews calls as the approver whose token is in OKAYED_TOKEN."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from aiohttp import hdrs

from gateway.app.config import load_config
from gateway.cli.event_loop import run_async
from gateway.config.addresses import SOCKET_URL, UNIX, is_http_url, local_address
from gateway.config.options import listen_address
from gateway.errors import UserError
from gateway.wire import sse

Result = TypeVar("Result")
#: Why the gateway refused a request with HTTP 401.
UNSET = "Set OKAYED_TOKEN to your approver token"
REJECTED = "The token in OKAYED_TOKEN is not an approver's token"
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=None)


class RequestRefused(UserError):
    """The gateway refused the request; the message says why."""


class ApiClient:
    """The API of a running gateway, as one approver."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self._base = SOCKET_URL if url.startswith(UNIX) else url.rstrip("/")

    async def calls(self, state: str) -> list[dict[str, Any]]:
        """Return all calls in *state*, newest first, as JSON objects of the API."""
        found: list[dict[str, Any]] = []
        before = ""
        while True:
            page = await self._request("GET", f"/api/v1/calls?state={state}&limit=200{before}")
            found += page["calls"]
            if page["next"] is None:
                return found
            before = f"&before={page['next']}"

    async def call(self, call_id: str) -> dict[str, Any]:
        """Return one call."""
        return await self._request("GET", f"/api/v1/calls/{call_id}")

    async def reveal(self, call_id: str) -> dict[str, Any]:
        """Return one call with its secrets; the audit trail records the access."""
        return await self._request("POST", f"/api/v1/calls/{call_id}/reveal")

    async def approve(self, call_id: str, reason: str) -> dict[str, Any]:
        """Approve the call as it is now, by its digest."""
        body = {"digest": (await self.call(call_id))["digest"], "reason": reason}
        return await self._request("POST", f"/api/v1/calls/{call_id}/approve", body)

    async def deny(self, call_id: str, reason: str) -> dict[str, Any]:
        """Deny the call."""
        return await self._request("POST", f"/api/v1/calls/{call_id}/deny", {"reason": reason})

    async def give_up(self, call_id: str, reason: str) -> dict[str, Any]:
        """Stop waiting for the server's answer to a running call."""
        return await self._request("POST", f"/api/v1/calls/{call_id}/give-up", {"reason": reason})

    async def accept(self, server: str, tool: str) -> list[str]:
        """Accept the current definition of a tool, or of all if *tool* is ""; returns the names of changed tools."""
        answer = await self._request("POST", "/api/v1/tools/accept", {"server": server, "tool": tool})
        return list(answer["tools"])

    async def watch(self, show: Callable[[list[dict[str, Any]]], None]) -> None:
        """Call *show* with the pending calls, now and after each change, until interrupted."""
        with self._connection_errors():
            async with self._session.get(f"{self._base}/api/v1/events") as stream:
                await _read_json(stream)
                async for event in sse.split_events(stream.content.iter_any()):
                    if event.data:
                        show(await self.calls("pending"))

    async def _request(self, verb: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        with self._connection_errors():
            async with self._session.request(verb, self._base + path, json=body) as answer:
                return await _read_json(answer)

    @contextmanager
    def _connection_errors(self) -> Iterator[None]:
        try:
            yield
        except aiohttp.ClientError as error:
            raise RequestRefused(f"No gateway answers at {self._url}; start one with: okayed run") from error


async def _read_json(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    if answer.content_type == "text/event-stream" and answer.status == 200:
        return {}
    body: Any = await answer.json() if answer.content_type == "application/json" else {}
    if answer.status == 200:
        return dict(body)
    if answer.status == 401:
        sent = hdrs.AUTHORIZATION in answer.request_info.headers
        raise RequestRefused(f"{REJECTED if sent else UNSET}; make one with: okayed token approver NAME")
    raise RequestRefused(
        str(body.get("error") or body.get("message") or f"The gateway answered HTTP {answer.status}.")
    )


@asynccontextmanager
async def connect(url: str, token: str) -> AsyncIterator[ApiClient]:
    """Connect to the API at *url*: the `http(s)://` or `unix:/path` address of the inbox. Raises `RequestRefused`.

    Strips whitespace from the token, because a token read from a file may end in a newline.
    """
    if not (url.startswith(UNIX) or is_http_url(url)):
        raise RequestRefused(
            f"{url} is not the address of an inbox; set OKAYED_URL to one such as http://127.0.0.1:8809"
        )
    connector = aiohttp.UnixConnector(url.removeprefix(UNIX)) if url.startswith(UNIX) else None
    secret = token.strip()
    headers = {"User-Agent": f"okayed/{version('okayed')}"} | (
        {"Authorization": f"Bearer {secret}"} if secret else {}
    )
    async with aiohttp.ClientSession(headers=headers, timeout=TIMEOUT, connector=connector) as session:
        yield ApiClient(session, url)


def call_api(config: Path, request: Callable[[ApiClient], Awaitable[Result]]) -> Result:
    """Run *request* with the API at OKAYED_URL, or else at the inbox address in the config file."""
    url = os.environ.get("OKAYED_URL") or local_address(
        listen_address(load_config(config, os.environ).inbox.listen)
    )

    async def connect_and_request() -> Result:
        async with connect(url, os.environ.get("OKAYED_TOKEN", "")) as api:
            return await request(api)

    return run_async(connect_and_request())
