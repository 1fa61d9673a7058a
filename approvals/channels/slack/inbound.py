"""What a click or a submitted modal means. Slack says who clicked; whether they may, the service decides."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Interaction:
    """One click or submission: who, in which team, what, on which call, as they saw it."""

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
    """Return the interaction that a payload of Slack's describes, or None for one that is none of ours."""
    match payload:
        case {
            "type": "block_actions",
            "actions": [{"action_id": str(action), **rest}],
            "user": {"id": str(user)},
        }:
            call, digest = _named(rest.get("value", ""))
            channel = _part(payload, "channel")
            return Interaction(
                action=action, user=user, team=_team(payload), call=call, digest=digest,
                trigger=str(payload.get("trigger_id", "")), channel=str(channel.get("id", "")),
            )  # fmt: skip
        case {
            "type": "view_submission",
            "view": {"callback_id": str(action), **view},
            "user": {"id": str(user)},
        }:
            call, digest = _named(view.get("private_metadata", ""))
            return Interaction(
                action=f"submit:{action}", user=user, team=_team(payload), call=call, digest=digest, reason=_reason(view),
            )  # fmt: skip
        case _:
            return None


def _part(of: Mapping[Any, Any], name: str) -> Mapping[Any, Any]:
    """Return a member that is an object; an empty one in place of anything else."""
    part = of.get(name)
    return part if isinstance(part, Mapping) else {}


def _team(payload: Mapping[str, Any]) -> str:
    """Return the team that the person belongs to: in a shared channel it may be another than the channel's."""
    return str(_part(payload, "user").get("team_id") or _part(payload, "team").get("id") or "")


def _named(value: object) -> tuple[str, str]:
    call, _, digest = str(value).partition(" ")
    return call, digest


def _reason(view: Mapping[Any, Any]) -> str:
    given = _part(_part(_part(_part(view, "state"), "values"), "reason"), "reason")
    return str(given.get("value") or "")
