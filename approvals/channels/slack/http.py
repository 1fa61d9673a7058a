"""Slack over HTTP: the signed endpoint for apps without Socket Mode."""

import json
import logging
from collections.abc import Mapping
from urllib.parse import parse_qs

from slack_sdk.signature import SignatureVerifier

from approvals.channels.slack import SlackChannel
from approvals.channels.slack.inbound import parse_interaction

log = logging.getLogger("okayed.slack")


class SlackEndpoint:
    """Verifies Slack's signature and forwards the interaction to the channel."""

    def __init__(self, channel: SlackChannel, signing_secret: str) -> None:
        if not signing_secret:
            raise ValueError("Slack's signing secret is empty.")
        self._channel = channel
        self._verifier = SignatureVerifier(signing_secret)

    async def receive(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Return the status and JSON body of the response."""
        if not self._is_signed(body, headers):
            return 401, b""
        try:
            payload = json.loads(parse_qs(body.decode())["payload"][0])
        except (KeyError, ValueError, RecursionError) as error:
            return _bad_request(type(error).__name__)
        if not isinstance(payload, dict):
            return _bad_request("not a JSON object")
        ack = await self._channel.interact(parse_interaction(payload))
        return 200, json.dumps(ack).encode() if ack else b""

    def _is_signed(self, body: bytes, headers: Mapping[str, str]) -> bool:
        """Return whether Slack signed this within five minutes. The verifier raises on malformed input."""
        try:
            return bool(
                self._verifier.is_valid(
                    body, headers.get("X-Slack-Request-Timestamp", ""), headers.get("X-Slack-Signature", "")
                ),
            )
        except (ValueError, TypeError):
            return False


def _bad_request(why: str) -> tuple[int, bytes]:
    log.warning("Cannot parse a signed request from Slack: %s", why)
    return 400, b""
