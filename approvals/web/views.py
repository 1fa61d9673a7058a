"""What the templates are given: a held call's card, cut into pieces that can be coloured, and words for its state.

The card is already safe to show. Nothing here makes markup: templates escape every piece.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from approvals.cards import CallPreview
from approvals.model import Decision, HeldCall, Review, State
from approvals.summaries import Summary

#: Arguments longer than this (characters) are shown whole, but without colours.
MAX_COLOURED = 100_000
#: Characters of the arguments that a row of the list hints at.
PREVIEW = 160

#: The word and tone for a call whose server reported a failure, whether as an error or as a result with `isError`.
FAILED = ("Failed at the server", "bad")
#: State -> (word, tone). The tone picks a colour; the word says the same.
WORDS: Mapping[State, tuple[str, str]] = {
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
#: What each state means for the person who looks.
MEANING: Mapping[State, str] = {
    State.PENDING: "It runs only if it is approved in time; otherwise it is denied.",
    State.APPROVED: "It has not run yet. It runs once, when the agent collects the approval.",
    State.DENIED: "It did not run. The agent was told the reason.",
    State.EXPIRED: "It did not run: the time was over.",
    State.CANCELLED: "It did not run: the agent took it back.",
    State.VOIDED: "It did not run: the policy or the tool changed while it waited.",
    State.FORWARDING: "It was sent to the server, which has not answered yet.",
    State.COMPLETED: "It ran once, and the server answered.",
    State.UPSTREAM_ERROR: "It was sent once, and the server answered with an error.",
    State.NOT_SENT: "It did not run: nothing reached the server.",
    State.IN_DOUBT: "It may have run, or not: no answer came. It will not be sent again. Look, then say what you found.",
    State.RESOLVED: "A person found out what became of it.",
}

UNCOLLECTED = "It did not run: it was approved, but the agent did not come back for it in time."
#: What became of the exact text of a call; where it is in no row, it was not sent.
SENT: Mapping[State, str] = {
    State.PENDING: "would be sent",
    State.APPROVED: "would be sent",
    State.FORWARDING: "was sent",
    State.COMPLETED: "was sent",
    State.UPSTREAM_ERROR: "was sent",
    State.IN_DOUBT: "may have been sent",
    State.RESOLVED: "may have been sent",
}

_PIECES = re.compile(
    r"""(?P<hidden>\\u\{[0-9A-F]+\})"""
    r"""|(?P<key>"(?:[^"\\\n]|\\.)*"(?=:))"""
    r"""|(?P<string>"(?:[^"\\\n]|\\.)*")"""
    r"""|(?P<word>\b(?:true|false|null)\b)"""
    r"""|(?P<number>-?\d[\d.eE+-]*)"""
)
#: A hidden character that was written out; behind an odd number of backslashes it is text that only looks like one.
_HIDDEN = re.compile(r"(?<!\\)((?:\\\\)*)(\\u\{[0-9A-F]+\})")

Pieces = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timestamp:
    """A time, for people and for scripts."""

    iso: str
    words: str
    clock: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRow:
    """One call in a list."""

    call: CallPreview
    word: str
    tone: str
    preview: str
    created: Timestamp
    expires: Timestamp
    approvals: int
    decided_by: str
    #: Why it does not wait for the person who looks, in a few words, or "".
    mark: str


def call_row(call: Summary, card: CallPreview, mark: str = "") -> CallRow:
    """Return what a list shows of a call."""
    word, tone = state_label(call)
    return CallRow(
        call=card,
        word=word,
        tone=tone,
        preview=" ".join(card.arguments[: PREVIEW * 4].split())[:PREVIEW],
        created=timestamp(call.created_at),
        expires=timestamp(call.expires_at),
        approvals=len(deciders(call.reviews)),
        decided_by=", ".join(deciders(call.reviews)) if call.decided_at else "",
        mark=mark,
    )


def state_label(call: HeldCall | Summary) -> tuple[str, str]:
    """Return the word for the state of a call, and its tone."""
    return FAILED if call.failed else WORDS[call.state]


def explain_state(call: HeldCall) -> str:
    """Return what the state of a call means for the person who looks."""
    return UNCOLLECTED if call.state is State.EXPIRED and call.enough else MEANING[call.state]


def deciders(reviews: Sequence[Review]) -> Sequence[str]:
    """Return the names of those whose answer decided a call: who denied it, or all who approved it."""
    denied = [given.approver for given in reviews if given.answer is Decision.DENY]
    approved = [given.approver for given in reviews if given.answer is Decision.APPROVE]
    return denied[:1] or tuple(dict.fromkeys(approved))


def timestamp(at: float) -> Timestamp:
    """Return epoch seconds as a time to show."""
    time = datetime.fromtimestamp(at, UTC)
    return Timestamp(
        iso=time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        words=time.strftime("%-d %b %Y, %H:%M:%S UTC"),
        clock=time.strftime("%H:%M UTC"),
    )


def highlight(text: str) -> Pieces:
    """Cut JSON text into (kind, text), so that keys, values and hidden characters can be told apart."""
    if len(text) > MAX_COLOURED:
        return mark_hidden(text)
    return [piece for piece in _cut(text) if piece[1]]


def mark_hidden(text: str) -> Pieces:
    """Cut text that is no JSON into (kind, text), so that hidden characters can be told apart."""
    return [piece for piece in _marked("", text) if piece[1]]


def _cut(text: str) -> Iterator[tuple[str, str]]:
    end = 0
    for found in _PIECES.finditer(text):
        yield "", text[end : found.start()]
        yield from _marked(found.lastgroup or "", found.group())
        end = found.end()
    yield "", text[end:]


def _marked(kind: str, text: str) -> Iterator[tuple[str, str]]:
    """Take the hidden characters out of a piece, so that they stand out."""
    end = 0
    for found in _HIDDEN.finditer(text):
        yield kind, text[end : found.start(2)]
        yield "hidden", found[2]
        end = found.end()
    yield kind, text[end:]


def format_age(seconds: float) -> str:
    """Return how long ago that was, in words."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "just now"
