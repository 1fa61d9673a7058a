"""A held call as a card: everything a channel may show of it, made safe in this one place (PURE)."""

from dataclasses import dataclass

from approvals import client_meta, redact
from approvals.channels import Card
from approvals.impact import describe_impact
from approvals.model import CallId, HeldCall, State
from approvals.safetext import ascii_name, count_hidden, escape_hidden, one_line
from approvals.summaries import Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPreview:
    """One held call in a list, made safe like a card."""

    id: CallId
    agent: str
    owner: str
    server: str
    tool: str
    category: str
    severity: str
    #: How the arguments begin.
    arguments: str
    #: Of what stands above.
    hidden_characters: int
    attended: bool
    needed: int


#: The longest address of a server that is shown, in characters.
MAX_ADDRESS = 300


def build_card(call: HeldCall, url: str, *, most: int | None = None) -> Card:
    """Return what a channel may show of a call; *url* is that of the inbox, or "".

    No more than the first *most* bytes of the arguments are read, and of what goes along: a list of large calls is
    soon made.
    """
    asked = call.call
    along = client_meta.parted(asked.beside)
    arguments, beside = _read(asked.arguments, most), _read(along.shown, most, flat=True)
    return Card(
        id=call.id,
        version=call.version,
        state=call.state,
        agent=ascii_name(asked.agent),
        owner=ascii_name(asked.owner or ""),
        server=ascii_name(asked.server),
        tool=ascii_name(asked.tool),
        address=one_line(call.address, MAX_ADDRESS),
        category=call.classification.category,
        risk=call.classification.risk,
        severity=call.classification.severity,
        impact=describe_impact(call.classification.category, call.classification.severity),
        evidence=tuple(map(escape_hidden, call.classification.evidence)),
        rule=escape_hidden(call.rule),
        reason=escape_hidden(call.reason),
        arguments=escape_hidden(arguments.text),
        beside=escape_hidden(beside.text),
        bookkeeping=along.line,
        hidden_characters=count_hidden(arguments.text) + count_hidden(beside.text),
        redacted=arguments.count + beside.count,
        size=len(asked.arguments) + len(asked.beside),
        whole=most is None or max(len(asked.arguments), len(along.shown)) <= most,
        digest=call.digest,
        created_at=call.created_at,
        expires_at=call.expires_at,
        decided_at=call.decided_at,
        needed=call.terms.needed,
        reviews=tuple(
            (ascii_name(one.approver), one.answer, escape_hidden(one.reason), one.via) for one in call.reviews
        ),
        attended=call.attended,
        note=escape_hidden(call.note),
        failed=call.failed,
        result=_result(call),
        url=f"{url.rstrip('/')}/calls/{call.id}" if url else "",
        changes=escape_hidden(call.changes),
        twin=_twin(call),
    )


def build_preview(call: Summary) -> CallPreview:
    """Return what a list shows of a call."""
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
        attended=call.attended,
        needed=call.terms.needed,
    )


def _read(sent: bytes, most: int | None, *, flat: bool = False) -> redact.RedactedText:
    if not sent:
        return redact.RedactedText("", 0)
    return redact.redact(sent if most is None else redact.truncate_json(sent, most), flat=flat)


def _result(call: HeldCall) -> str:
    """Say in one line how the run ended. What the server answered is the agent's, not the channel's."""
    took = f" after {call.settled_at - call.decided_at:.1f} s" if call.settled_at and call.decided_at else ""
    match call.state:
        case State.COMPLETED | State.UPSTREAM_ERROR if call.failed:
            return f"It was sent once, and the server reported a failure{took}."
        case State.COMPLETED:
            return f"It ran once and the server answered{took}."
        case State.NOT_SENT | State.IN_DOUBT:
            return one_line(call.note, 200)
        case _:
            return ""


def _twin(call: HeldCall) -> str:
    if call.twin is None:
        return ""
    ago = (
        f"{max(0, (call.created_at - call.twin_at) / 60):.0f} min before"
        if call.twin_at is not None
        else "before"
    )
    return f"The same call was asked {ago} ({call.twin})."
