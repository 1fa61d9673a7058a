"""Posts a signed webhook for every change of a held call. One way: it takes no reviews."""

from collections.abc import Callable
from dataclasses import asdict

import aiohttp
import msgspec

from approvals.channels import Card
from approvals.channels.signature import decode_key, sign
from approvals.service import ApprovalService

TIMEOUT = aiohttp.ClientTimeout(total=10)


class WebhookError(Exception):
    """The webhook was not delivered."""


class WebhookChannel:
    """One webhook receiver."""

    #: A webhook reports each version of a call once; presence changes no version.
    shows_presence = False

    def __init__(self, *, name: str, url: str, secret: str, clock: Callable[[], float]) -> None:
        self.name = name
        self._url = url
        self._key = decode_key(secret)
        self._clock = clock
        self._http: aiohttp.ClientSession | None = None

    async def start(self, _service: ApprovalService) -> None:
        """Open the connection pool."""
        self._http = aiohttp.ClientSession(timeout=TIMEOUT)

    async def post(self, card: Card) -> str:
        """Post a new call; its id is the reference."""
        await self._send(card)
        return card.id

    async def update(self, ref: str, card: Card) -> str:
        """Post a change."""
        await self._send(card)
        return ref

    async def _send(self, card: Card) -> None:
        if self._http is None:
            raise WebhookError("The channel was not started.")
        body = msgspec.json.encode({"type": "okayed.call", "data": _payload(card)})
        headers = sign(f"{card.id}-{card.version}", self._clock(), body, self._key)
        async with self._http.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
            if answer.status >= 300:
                raise WebhookError(f"HTTP {answer.status}")

    async def close(self) -> None:
        """Close the connection pool."""
        if self._http is not None:
            await self._http.close()


def _payload(card: Card) -> dict[str, object]:
    """Return the card's fields, without those that would reach the server."""
    withheld = {"arguments", "extra_params", "client_metadata"}
    return {name: value for name, value in asdict(card).items() if name not in withheld}
