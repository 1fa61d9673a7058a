"""Slack: a card in a channel, buttons for approvers, and modals for reasons and long arguments.

The channel shows the reconciler's cards and forwards reviews to the service. It never changes a message on its own, so
a message only shows committed state.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Protocol

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_async_handlers import (
    AsyncRateLimitErrorRetryHandler,
    AsyncServerErrorRetryHandler,
)
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse
from slack_sdk.web.async_client import AsyncWebClient

from approvals.cards import build_card
from approvals.channels import Card
from approvals.channels.slack import blocks
from approvals.channels.slack.inbound import Interaction, parse_interaction
from approvals.errors import ApprovalError
from approvals.model import Approver, CallId, Decision, State
from approvals.service import ApprovalService

#: Errors that no retry fixes: someone has to repair the app or its token.
FATAL = frozenset(
    {
        "invalid_auth",
        "not_allowed_token_type",
        "account_inactive",
        "token_revoked",
        "token_expired",
        "missing_scope",
        "not_authed",
        "link_disabled",
    }
)
#: Errors caused by the blocks themselves.
UNSHOWABLE = frozenset({"invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long", "msg_too_long"})
log = logging.getLogger("okayed.slack")

#: The response to a submitted modal; None is a plain acknowledgement.
Ack = Mapping[str, Any] | None


class _Connection(Protocol):
    """The methods of a Socket Mode connection that are used here; slack-sdk leaves them untyped."""

    socket_mode_request_listeners: list[Any]

    async def connect(self) -> None: ...

    async def close(self) -> None: ...


def _log_if_fatal(error: SlackApiError, message: str) -> bool:
    """Log an error that no retry fixes, as one sentence; return whether it is one. *message* has a %s for its code."""
    code = error.response.get("error")
    if code in FATAL:
        log.error(message, code)
    return code in FATAL


class _SocketModeConnection(SocketModeClient):
    """A Socket Mode connection that the SDK reopens until Slack returns a fatal error."""

    async def issue_new_wss_url(self) -> str:
        try:
            return await super().issue_new_wss_url()
        except SlackApiError as error:
            if _log_if_fatal(error, "Slack refused the connection (%s); check slack.app_token"):
                self.closed = True  # ends the SDK's retries
            raise


class SlackChannel:
    """One Slack channel of one workspace."""

    name = "slack"
    shows_presence = True

    def __init__(
        self,
        *,
        bot_token: str,
        channel: str,
        app_token: str | None = None,
        api_url: str | None = None,
        inbox_url: str = "",
    ) -> None:
        self._web = AsyncWebClient(token=bot_token, base_url=api_url or AsyncWebClient.BASE_URL)
        self._web.retry_handlers += [
            AsyncRateLimitErrorRetryHandler(max_retry_count=2),
            AsyncServerErrorRetryHandler(max_retry_count=2),
        ]
        self._channel = channel
        self._app_token = app_token
        self._inbox_url = inbox_url
        self._socket: _Connection | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._team = ""
        self._service: ApprovalService

    async def start(self, service: ApprovalService) -> None:
        """Start to listen. The connection is made and retried in the background."""
        self._service = service
        if self._app_token:
            self._run_in_background(self._listen(self._app_token))

    def _run_in_background(self, job: Any) -> None:
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen(self, app_token: str) -> None:
        socket: _Connection = _SocketModeConnection(app_token=app_token, web_client=self._web)
        socket.socket_mode_request_listeners.append(self._on_request)
        self._socket = socket
        await socket.connect()

    async def post(self, card: Card) -> str:
        """Post a new card; the reference is the message's channel and timestamp."""
        sent = await self._send(
            "chat_postMessage", card, channel=self._channel, unfurl_links=False, unfurl_media=False
        )
        return f"{sent['channel']} {sent['ts']}"

    async def update(self, ref: str, card: Card) -> str:
        """Update a message. If it was deleted while the call is pending, post it again."""
        channel, _, ts = ref.partition(" ")
        try:
            await self._send("chat_update", card, channel=channel, ts=ts)
        except SlackApiError as error:
            if error.response.get("error") != "message_not_found":
                raise
            return await self.post(card) if card.state is State.PENDING else ref
        return ref

    async def _send(self, method: str, card: Card, **where: Any) -> Mapping[str, Any]:
        """Send a card. If Slack rejects its blocks, send one line with a link instead."""
        send = getattr(self._web, method)
        try:
            sent: Mapping[str, Any] = await send(**where, **blocks.build_message(card))
        except SlackApiError as error:
            _log_if_fatal(error, "Slack refused a message (%s); check slack.bot_token and the app's scopes")
            if error.response.get("error") not in UNSHOWABLE:
                raise
            sent = await send(**where, **blocks.build_fallback(card))
        return sent

    async def close(self) -> None:
        """Disconnect."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            await self._socket.close()

    async def _on_request(self, client: AsyncBaseSocketModeClient, request: SocketModeRequest) -> None:
        """Handle one envelope. Buttons are acknowledged first, because Slack waits only three seconds."""
        if request.type != "interactive":
            await client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))
            return
        interaction = parse_interaction(request.payload)
        submitted = interaction is not None and interaction.action.startswith("submit:")
        if not submitted:
            await client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))
        ack = await self.interact(interaction)
        if submitted:
            payload = dict(ack) if ack else None
            await client.send_socket_mode_response(
                SocketModeResponse(envelope_id=request.envelope_id, payload=payload)
            )

    async def interact(self, interaction: Interaction | None) -> Ack:
        """Handle a click or a submission. Returns the response to a modal."""
        if interaction is None or interaction.action == "open":
            return None
        try:
            match interaction.action:
                case "deny":
                    await self._open_denial(interaction)
                case "review":
                    await self._open_review(interaction)
                case "approve" | "submit:approve":
                    await self._review(interaction, Decision.APPROVE)
                case "submit:deny":
                    await self._review(interaction, Decision.DENY)
        except (ApprovalError, SlackApiError) as error:
            return await self._refuse(interaction, error)
        except Exception as error:
            log.exception("Failed to handle a Slack interaction")
            return await self._refuse(interaction, error)
        return None

    async def _open_denial(self, interaction: Interaction) -> None:
        call = await self._service.get(CallId(interaction.call))
        # The modal does not show whether a client waits.
        card = build_card(call, self._inbox_url, attended=True, most=blocks.MESSAGE_ARGUMENTS)
        view = blocks.build_deny_view(card, interaction.digest)
        await self._web.views_open(trigger_id=interaction.trigger, view=view)

    async def _open_review(self, interaction: Interaction) -> None:
        call = await self._service.get(CallId(interaction.call))
        self._service.directory.may_review(await self._approver(interaction), call)
        attended = bool(await self._service.find_attended([call]))
        view = blocks.build_review_view(build_card(call, self._inbox_url, attended=attended))
        await self._web.views_open(trigger_id=interaction.trigger, view=view)

    async def _review(self, interaction: Interaction, answer: Decision) -> None:
        await self._service.review(
            CallId(interaction.call), await self._approver(interaction), answer,
            via="slack", reason=interaction.reason, digest=interaction.digest,
        )  # fmt: skip

    async def _approver(self, interaction: Interaction) -> Approver:
        """Return the approver who clicked, by member id and team, never by name; otherwise a stranger."""
        approver = self._service.directory.by_slack(interaction.user)
        if approver is None or not interaction.team or interaction.team != await self._own_team():
            # The service still gets the review, so that the refusal is in the audit trail.
            return Approver(name=f"slack:{interaction.user}")
        return approver

    async def _own_team(self) -> str:
        if not self._team:
            self._team = str((await self._web.auth_test())["team_id"])
        return self._team

    async def _refuse(self, interaction: Interaction, error: Exception) -> Ack:
        """Tell only the person who clicked why nothing happened."""
        message = (
            str(error)
            if isinstance(error, ApprovalError)
            else "Something went wrong. Try again, or use the inbox."
        )
        if interaction.action.startswith("submit:"):
            return {"response_action": "errors", "errors": {"reason": message}}
        try:
            await self._web.chat_postEphemeral(
                channel=interaction.channel or self._channel, user=interaction.user, text=message
            )
        except (SlackApiError, aiohttp.ClientError, OSError):
            log.warning("Failed to tell a Slack user why a click was refused", exc_info=True)
        return None
