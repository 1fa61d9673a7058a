"""Builds the cards and previews of held calls: the only place where their text is made safe to show (PURE)."""

from dataclasses import dataclass

from approvals import client_meta, redact
from approvals.channels import Card
from approvals.impact import describe_impact
from approvals.model import CallId, HeldCall, State
from approvals.safetext import ascii_name, count_hidden, escape_hidden, one_line
from approvals.summaries import Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPreview:
    """A held call in a list: safe to show, like a card."""

    id: CallId
    agent: str
    owner: str
    server: str
    tool: str
    category: str
    severity: str
    #: The beginning of the arguments.
    arguments: str
    #: In the fields above.
    hidden_characters: int
    needed: int


#: The most characters of a server's address that are shown.
MAX_ADDRESS = 300


def build_card(call: HeldCall, url: str, *, attended: bool, most: int | None = None) -> Card:
    """Build the card of a call; *url* is the inbox's, or "". *attended*: whether a client waits for the call.

    With *most*, read at most that many bytes of the arguments, and of the other params, so that large calls stay cheap.
    """
    tool_call = call.call
    metadata = client_meta.split_params(tool_call.extra_params)
    arguments, extra_params = _read(tool_call.arguments, most), _read(metadata.shown, most, flat=True)
    return Card(
        id=call.id,
        version=call.version,
        state=call.state,
        agent=ascii_name(tool_call.agent),
        owner=ascii_name(tool_call.owner or ""),
        server=ascii_name(tool_call.server),
        tool=ascii_name(tool_call.tool),
        address=one_line(call.address, MAX_ADDRESS),
        category=call.classification.category,
        risk=call.classification.risk,
        severity=call.classification.severity,
        impact=describe_impact(call.classification.category, call.classification.severity),
        evidence=tuple(map(escape_hidden, call.classification.evidence)),
        rule=escape_hidden(call.rule),
        reason=escape_hidden(call.reason),
        arguments=escape_hidden(arguments.text),
        extra_params=escape_hidden(extra_params.text),
        client_metadata=metadata.line,
        hidden_characters=count_hidden(arguments.text) + count_hidden(extra_params.text),
        redacted=arguments.count + extra_params.count,
        size=len(tool_call.arguments) + len(tool_call.extra_params),
        whole=most is None or max(len(tool_call.arguments), len(metadata.shown)) <= most,
        digest=call.digest,
        created_at=call.created_at,
        expires_at=call.expires_at,
        decided_at=call.decided_at,
        needed=call.terms.needed,
        reviews=tuple(
            (ascii_name(one.approver), one.answer, escape_hidden(one.reason), one.via) for one in call.reviews
        ),
        attended=attended,
        note=escape_hidden(call.note),
        failed=call.failed,
        result=_result(call),
        url=f"{url.rstrip('/')}/calls/{call.id}" if url else "",
        changes=escape_hidden(call.changes),
        twin=_twin(call),
    )


def build_preview(call: Summary) -> CallPreview:
    """Build the preview of a call."""
    begun = redact.redact(call.beginning)
    return CallPreview(
        id=call.id,
        agent=ascii_name(call.call.agent),
        owner=ascii_name(call.call.owner or ""),
        server=ascii_name(call.call.server),
        tool=ascii_name(call.call.tool),
        category=call.classification.category,
        severity=call.classification.severity,
        arguments=escape_hidden(begun.text),
        hidden_characters=count_hidden(begun.text),
        needed=call.terms.needed,
    )


def _read(sent: bytes, most: int | None, *, flat: bool = False) -> redact.RedactedText:
    if not sent:
        return redact.RedactedText("", 0)
    return redact.redact(sent if most is None else redact.truncate_json(sent, most), flat=flat)


def _result(call: HeldCall) -> str:
    """Return one line about the end of the run. The server's answer is for the agent only, never for a channel."""
    took = f" after {call.settled_at - call.decided_at:.1f} s" if call.settled_at and call.decided_at else ""
    match call.state:
        case State.COMPLETED | State.UPSTREAM_ERROR if call.failed:
            return f"Sent once; the server reported a failure{took}."
        case State.COMPLETED:
            return f"Ran once; the server answered{took}."
        case State.NOT_SENT | State.IN_DOUBT:
            return one_line(call.note, 200)
        case _:
            return ""


def _twin(call: HeldCall) -> str:
    if call.twin is None:
        return ""
    if call.twin_at is None:
        return f"Same call as {call.twin}, made earlier."
    minutes = max(0, (call.created_at - call.twin_at) / 60)
    return f"Same call as {call.twin}, made {minutes:.0f} min earlier."
