"""Parses clicks and submitted modals. Slack identifies the user; the service decides what they may do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Interaction:
    """One click or submission: the user and team, the action, and the call with the digest that was shown."""

    #: `approve`, `deny`, `review`, `open` for buttons; `submit:approve`, `submit:deny` for modals.
    action: str
    user: str
    team: str
    call: str
    digest: str
    reason: str = ""
    trigger: str = ""
    channel: str = ""


def parse_interaction(payload: Mapping[str, Any]) -> Interaction | None:
    """Parse an interaction payload; None for other kinds of payload."""
    match payload:
        case {
            "type": "block_actions",
            "actions": [{"action_id": str(action), **rest}],
            "user": {"id": str(user)},
        }:
            call, digest = _call_and_digest(rest.get("value", ""))
            channel = _object(payload, "channel")
            return Interaction(
                action=action, user=user, team=_team(payload), call=call, digest=digest,
                trigger=str(payload.get("trigger_id", "")), channel=str(channel.get("id", "")),
            )  # fmt: skip
        case {
            "type": "view_submission",
            "view": {"callback_id": str(action), **view},
            "user": {"id": str(user)},
        }:
            call, digest = _call_and_digest(view.get("private_metadata", ""))
            return Interaction(
                action=f"submit:{action}", user=user, team=_team(payload), call=call, digest=digest, reason=_reason(view),
            )  # fmt: skip
        case _:
            return None


def _object(parent: Mapping[Any, Any], name: str) -> Mapping[Any, Any]:
    """Return a member that is an object, or an empty one."""
    part = parent.get(name)
    return part if isinstance(part, Mapping) else {}


def _team(payload: Mapping[str, Any]) -> str:
    """Return the user's own team; in a shared channel it can differ from the channel's."""
    return str(_object(payload, "user").get("team_id") or _object(payload, "team").get("id") or "")


def _call_and_digest(value: object) -> tuple[str, str]:
    call, _, digest = str(value).partition(" ")
    return call, digest


def _reason(view: Mapping[Any, Any]) -> str:
    given = _object(_object(_object(_object(view, "state"), "values"), "reason"), "reason")
    return str(given.get("value") or "")
