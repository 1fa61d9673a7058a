"""A webhook that keeps the external checkpoint."""

import logging
from collections.abc import Callable

import aiohttp
import msgspec

from approvals.channels.signature import decode_key, sign
from gateway.app.checkpoints import ExternalCheckpoint, decode_checkpoint

TIMEOUT = aiohttp.ClientTimeout(total=10)
log = logging.getLogger("okayed")


class CheckpointWebhook:
    """A webhook that receives signed checkpoints, and may return the last one for a GET."""

    def __init__(
        self, url: str, secret: str, http: aiohttp.ClientSession, clock: Callable[[], float]
    ) -> None:
        self._url = url
        self._key = decode_key(secret)
        self._http = http
        self._clock = clock

    async def last(self) -> ExternalCheckpoint | None:
        """Request the checkpoint. The gateway starts without it if the receiver does not return one."""
        try:
            async with self._http.get(
                self._url, headers=self._sign("last", b""), timeout=TIMEOUT, allow_redirects=False
            ) as answer:
                if answer.status != 200:
                    raise ValueError(f"HTTP {answer.status}")
                return decode_checkpoint(await answer.read())
        except (aiohttp.ClientError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
            log.warning(
                "the store was not compared with a checkpoint: the webhook did not return one (%s)", error
            )
            return None

    async def keep(self, checkpoint: ExternalCheckpoint) -> None:
        """Post the checkpoint; raises `OSError`."""
        body = msgspec.json.encode(
            {
                "type": "okayed.checkpoint",
                "data": {"checkpoint": checkpoint.checkpoint, "starts": checkpoint.starts},
            }
        )
        headers = self._sign(
            f"checkpoint-{checkpoint.starts}-{checkpoint.checkpoint.partition(':')[0]}", body
        )
        try:
            async with self._http.post(
                self._url, data=body, headers=headers, timeout=TIMEOUT, allow_redirects=False
            ) as answer:
                answer.raise_for_status()
        except aiohttp.ClientError as error:
            raise OSError(str(error)) from error

    def _sign(self, message_id: str, body: bytes) -> dict[str, str]:
        return sign(message_id, self._clock(), body, self._key)
