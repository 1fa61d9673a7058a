"""The values of the templates: labels for states, times, list rows, and JSON cut into tokens to colour.

The text is already safe to show. Nothing here makes markup; templates escape every token.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from approvals.cards import CallPreview
from approvals.model import Decision, HeldCall, Review, State
from approvals.summaries import Summary

#: Longer text (characters) is shown without colours.
MAX_COLOURED = 100_000
#: Characters of the arguments in a row of the list.
PREVIEW = 160

#: The label and tone of a call that failed, with an error or a result with `isError`.
FAILED = ("Failed at the server", "bad")
#: State -> (label, tone). The tone selects a colour.
LABELS: Mapping[State, tuple[str, str]] = {
    State.PENDING: ("Waiting", "wait"),
    State.APPROVED: ("Approved", "good"),
    State.DENIED: ("Denied", "bad"),
    State.EXPIRED: ("Expired", "off"),
    State.CANCELLED: ("Cancelled", "off"),
    State.VOIDED: ("Voided", "off"),
    State.FORWARDING: ("Running", "wait"),
    State.COMPLETED: ("Done", "good"),
    State.UPSTREAM_ERROR: FAILED,
    State.NOT_SENT: ("Not sent", "bad"),
    State.IN_DOUBT: ("In doubt", "bad"),
    State.RESOLVED: ("Resolved", "off"),
}
#: State -> explanation.
EXPLANATIONS: Mapping[State, str] = {
    State.PENDING: "It runs only if it is approved in time.",
    State.APPROVED: "It has not run yet. It runs once, when the agent picks it up.",
    State.DENIED: "It did not run. The agent gets the reason.",
    State.EXPIRED: "It did not run: it was not approved in time.",
    State.CANCELLED: "It did not run: the agent cancelled it.",
    State.VOIDED: "It did not run: the policy or the tool changed while it was waiting.",
    State.FORWARDING: "It was sent to the server, which has not answered yet.",
    State.COMPLETED: "It ran once, and the server answered.",
    State.UPSTREAM_ERROR: "It was sent once, and the server returned an error.",
    State.NOT_SENT: "It did not run: nothing reached the server.",
    State.IN_DOUBT: (
        "No answer arrived, so the call may or may not have run. It will not be sent again. "
        "Find out what happened, then record it."
    ),
    State.RESOLVED: "A person recorded what happened.",
}

UNCOLLECTED = "It was approved but did not run: the agent did not pick it up in time."
#: State -> whether the exact text was sent. Other states: it was not.
SENT: Mapping[State, str] = {
    State.PENDING: "would be sent",
    State.APPROVED: "would be sent",
    State.FORWARDING: "was sent",
    State.COMPLETED: "was sent",
    State.UPSTREAM_ERROR: "was sent",
    State.IN_DOUBT: "may have been sent",
    State.RESOLVED: "may have been sent",
}

_TOKEN = re.compile(
    r"""(?P<hidden>\\u\{[0-9A-F]+\})"""
    r"""|(?P<key>"(?:[^"\\\n]|\\.)*"(?=:))"""
    r"""|(?P<string>"(?:[^"\\\n]|\\.)*")"""
    r"""|(?P<word>\b(?:true|false|null)\b)"""
    r"""|(?P<number>-?\d[\d.eE+-]*)"""
)
#: An escaped hidden character; after an odd number of backslashes it is ordinary text.
_HIDDEN = re.compile(r"(?<!\\)((?:\\\\)*)(\\u\{[0-9A-F]+\})")

Tokens = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timestamp:
    """A time for people and for scripts."""

    iso: str
    words: str
    clock: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRow:
    """A call in a list."""

    call: CallPreview
    word: str
    tone: str
    preview: str
    created: Timestamp
    expires: Timestamp
    approvals: int
    decided_by: str
    #: Why the user cannot decide it, in a few words, or "".
    badge: str
    #: Whether its client no longer waits; False in lists of past calls.
    unattended: bool


def build_row(call: Summary, card: CallPreview, badge: str = "", *, unattended: bool = False) -> CallRow:
    """Build the row of a call in a list."""
    word, tone = label_state(call)
    return CallRow(
        call=card,
        word=word,
        tone=tone,
        preview=" ".join(card.arguments[: PREVIEW * 4].split())[:PREVIEW],
        created=format_timestamp(call.created_at),
        expires=format_timestamp(call.expires_at),
        approvals=len(find_deciders(call.reviews)),
        decided_by=", ".join(find_deciders(call.reviews)) if call.decided_at else "",
        badge=badge,
        unattended=unattended,
    )


def label_state(call: HeldCall | Summary) -> tuple[str, str]:
    """Return the label and the tone of a call's state."""
    return FAILED if call.failed else LABELS[call.state]


def explain_state(call: HeldCall) -> str:
    """Return the explanation of a call's state."""
    return UNCOLLECTED if call.state is State.EXPIRED and call.enough else EXPLANATIONS[call.state]


def find_deciders(reviews: Sequence[Review]) -> Sequence[str]:
    """Return the approvers who decided a call: the one who denied it, or all who approved it."""
    denied = [given.approver for given in reviews if given.answer is Decision.DENY]
    approved = [given.approver for given in reviews if given.answer is Decision.APPROVE]
    return denied[:1] or tuple(dict.fromkeys(approved))


def format_timestamp(at: float) -> Timestamp:
    """Format epoch seconds."""
    time = datetime.fromtimestamp(at, UTC)
    return Timestamp(
        iso=time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        words=time.strftime("%-d %b %Y, %H:%M:%S UTC"),
        clock=time.strftime("%H:%M UTC"),
    )


def highlight(text: str) -> Tokens:
    """Cut JSON text into (kind, text) tokens: keys, values, hidden characters."""
    if len(text) > MAX_COLOURED:
        return mark_hidden(text)
    return [token for token in _tokenize(text) if token[1]]


def mark_hidden(text: str) -> Tokens:
    """Cut other text into (kind, text) tokens, to mark hidden characters."""
    return [token for token in _split_hidden("", text) if token[1]]


def _tokenize(text: str) -> Iterator[tuple[str, str]]:
    end = 0
    for found in _TOKEN.finditer(text):
        yield "", text[end : found.start()]
        yield from _split_hidden(found.lastgroup or "", found.group())
        end = found.end()
    yield "", text[end:]


def _split_hidden(kind: str, text: str) -> Iterator[tuple[str, str]]:
    """Split the hidden characters off a token."""
    end = 0
    for found in _HIDDEN.finditer(text):
        yield kind, text[end : found.start(2)]
        yield "hidden", found[2]
        end = found.end()
    yield kind, text[end:]


def format_age(seconds: float) -> str:
    """Format an age, such as "5 min ago"."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "just now"
