"""Renders a card as Slack blocks, with text from agents and servers as literal text only.

Untrusted text goes into `rich_text` and `plain_text`, where nothing is a mention, a link or the end of a fence. A card
that cannot show all arguments has a Review button instead of Approve. With hidden secrets, only the inbox can approve.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from slack_sdk.models.blocks import (
    ActionsBlock,
    Block,
    ButtonElement,
    ConfirmObject,
    ContextBlock,
    HeaderBlock,
    InputBlock,
    MarkdownTextObject,
    PlainTextInputElement,
    PlainTextObject,
    RichTextBlock,
    RichTextElementParts,
    RichTextPreformattedElement,
    RichTextSectionElement,
    SectionBlock,
)
from slack_sdk.models.messages import DateLink
from slack_sdk.models.views import View

from approvals.channels import Card
from approvals.model import Decision, State
from approvals.safetext import one_line

#: Arguments on a message (characters, lines), in one block of a modal, and in a whole modal. Slack refuses a message
#: of more than about 13,200 characters (msg_blocks_too_long).
MESSAGE_ARGUMENTS = 2500
MESSAGE_LINES = 20
MODAL_BLOCK = 2900
MODAL_ARGUMENTS = 20_000
#: Characters of a reason in a modal.
MAX_REASON = 1000
#: Sentences of evidence on a message.
EVIDENCE = 3

FAILED = "Failed at the server: {tool} on {server}"
HEADLINES = {
    State.PENDING: "Approve {tool} on {server}?",
    State.APPROVED: "Approved: {tool} on {server}",
    State.FORWARDING: "Running: {tool} on {server}",
    State.COMPLETED: "Done: {tool} on {server}",
    State.UPSTREAM_ERROR: FAILED,
    State.NOT_SENT: "Not sent: {tool} on {server}",
    State.DENIED: "Denied: {tool} on {server}",
    State.EXPIRED: "Expired: {tool} on {server}",
    State.CANCELLED: "Cancelled: {tool} on {server}",
    State.VOIDED: "Voided: {tool} on {server}",
    State.IN_DOUBT: "In doubt: {tool} on {server}",
    State.RESOLVED: "Resolved: {tool} on {server}",
}
ENDINGS = {
    State.APPROVED: "✅ Approved. It runs when the agent picks it up.",
    State.FORWARDING: "⏳ Approved and running.",
    State.DENIED: "❌ Denied.",
    State.EXPIRED: "⌛ Not approved in time, so the call was denied.",
    State.CANCELLED: "The agent cancelled the call; nothing ran.",
    State.VOIDED: "The policy or the tool changed while the call was waiting; nothing ran.",
    State.IN_DOUBT: (
        "⚠️ No answer arrived, so the call may or may not have run. It will not be sent again. "
        "Find out what happened and record it in the inbox."
    ),
    State.RESOLVED: "A person recorded what happened.",
}
UNCOLLECTED = "⌛ Approved, but the agent did not pick it up in time; nothing ran."
_RISKY = ("High", "Critical")


def fits_message(card: Card) -> bool:
    """Return whether a message can show all arguments."""
    return (
        card.whole
        and len(card.everything) <= MESSAGE_ARGUMENTS
        and card.everything.count("\n") < MESSAGE_LINES
    )


def fits_slack(card: Card) -> bool:
    """Return whether Slack can show all of the call, on the message or in a modal."""
    return card.whole and not card.redacted and not card.changes and len(card.everything) <= MODAL_ARGUMENTS


def build_message(card: Card) -> dict[str, Any]:
    """Build `text`, `blocks` and `metadata` for chat.postMessage and chat.update."""
    blocks: list[Block] = [
        HeaderBlock(text=_plain(one_line(headline(card), 150))),
        _requester(card),
        SectionBlock(fields=[_plain(field) for field in _fields(card)]),
        _preformatted(_shown_arguments(card)),
        *_notes(card),
        *_reviews(card),
        _fine_print(card),
    ]
    if card.state is State.PENDING:
        blocks.append(_buttons(card))
    return {
        "text": _escaped(f"{headline(card)} ({card.severity} severity, from {card.agent})"),
        "blocks": [block.to_dict() for block in blocks],
        "metadata": {
            "event_type": "okayed_call",
            "event_payload": {"id": card.id, "version": card.version},
        },
    }


def build_fallback(card: Card) -> dict[str, Any]:
    """Build a message that Slack always accepts: the tool, the id and a link to the inbox."""
    where = card.url or card.id
    line = f"{one_line(headline(card), 2000)} This call cannot be shown here. Open it in the inbox: {where}"
    blocks: list[Block] = [SectionBlock(text=_plain(line)), _fine_print(card)]
    if card.url:
        blocks.append(ActionsBlock(block_id="decide", elements=[_link(card)]))
    return {"text": _escaped(line), "blocks": [block.to_dict() for block in blocks]}


def headline(card: Card) -> str:
    """Return the headline of a card."""
    line = FAILED if card.failed else HEADLINES[card.state]
    return line.format(tool=card.tool, server=card.server)


def _requester(card: Card) -> Block:
    owner = f"for {card.owner}" if card.owner else "(no owner)"
    return RichTextBlock(
        elements=[
            RichTextSectionElement(
                elements=[
                    _text(one_line(card.agent, 200), bold=True),
                    _text(f" {one_line(owner, 200)} wants to run "),
                    _text(one_line(f"{card.server} / {card.tool}", 300), code=True),
                ],
            ),
        ],
    )


def _fields(card: Card) -> Iterator[str]:
    kind = one_line(f"{card.category} · {card.risk} risk · {card.severity} severity", 200)
    yield f"{kind}\n{one_line(card.impact, 300)}"
    why = "\n".join(one_line(sentence, 300) for sentence in card.evidence[:EVIDENCE])
    yield f"Why\n{why or 'No evidence'}"[:2000]
    reason = f": {card.reason}" if card.reason else ""
    yield one_line(f"Held by rule {card.rule}{reason}", 600)
    if card.needed > 1:
        yield f"{_approvals(card)} of {card.needed} approvals"


def _shown_arguments(card: Card) -> str:
    if fits_message(card):
        return card.everything
    lines = card.everything[:MESSAGE_ARGUMENTS].split("\n")[:MESSAGE_LINES]
    shown = "\n".join(lines)
    return f"{shown}\n… {card.size} bytes in total, not all shown"


def _notes(card: Card) -> Iterator[Block]:
    notes = [
        f"⚠️ {_count(card.hidden_characters, 'hidden character')}, shown as \\u{{…}}"
        if card.hidden_characters
        else "",
        f"{_count(card.redacted, 'possible secret')} hidden here, but sent to the server. View and approve the call in the inbox."
        if card.redacted
        else "",
        "The agent is no longer waiting. If approved, the call runs when the agent asks again."
        if card.state is State.PENDING and not card.attended
        else "",
        "⚠️ The tool's definition has changed since it was accepted. See the changes in the inbox."
        if card.changes
        else "",
        card.twin,
    ]
    if text := "\n".join(note for note in notes if note):
        yield RichTextBlock(elements=[RichTextSectionElement(elements=[_text(text)])])


def _reviews(card: Card) -> Iterator[Block]:
    lines = [
        f"{'✅' if answer == Decision.APPROVE else '❌'} {who} {'approved' if answer == Decision.APPROVE else 'denied'}"
        f"{f' ({via})' if via != 'slack' else ''}{f': {one_line(reason, 400)}' if reason else ''}"
        for who, answer, reason, via in card.reviews
    ]
    result = [one_line(card.result, 400)] if card.result else []
    note = [one_line(card.note, 400)] if card.note and card.note != card.result else []
    if text := "\n".join([*lines, *_ending(card), *result, *note]):
        yield RichTextBlock(elements=[RichTextSectionElement(elements=[_text(text)])])


def _ending(card: Card) -> Iterator[str]:
    if card.state is State.EXPIRED and _approvals(card) >= card.needed:
        yield UNCOLLECTED
    elif card.state in ENDINGS:
        yield ENDINGS[card.state]


def _approvals(card: Card) -> int:
    return sum(answer == Decision.APPROVE for _, answer, _, _ in card.reviews)


def _fine_print(card: Card) -> Block:
    """The deadline or the time of the decision, the id and the digest. Slack shows times in the reader's zone."""
    parts = [f"`{card.id}`", f"sha256 `{card.digest[:12]}`"]
    if card.state is State.PENDING:
        parts.insert(0, f"Denied automatically at {_when(card.expires_at, '{time} ({ago})')}")
    elif card.decided_at is not None:
        word = "Decided" if card.reviews else "Ended"
        parts.insert(0, f"{word} {_when(card.decided_at, '{date_short_pretty} {time}')}")
    return ContextBlock(elements=[MarkdownTextObject(text="  ·  ".join(parts))])


def _when(at: float, date_format: str) -> DateLink:
    return DateLink(
        date=int(at),
        date_format=date_format,
        fallback=f"{datetime.fromtimestamp(at, UTC):%-d %b %Y, %H:%M UTC}",
    )


def _buttons(card: Card) -> Block:
    value = f"{card.id} {card.digest}"
    approve = ButtonElement(
        text=_plain("Approve"), action_id="approve", style="primary", value=value,
        confirm=_confirm(card) if card.risk in _RISKY else None,
    )  # fmt: skip
    review = ButtonElement(text=_plain("Review…"), action_id="review", value=value)
    deny = ButtonElement(text=_plain("Deny…"), action_id="deny", style="danger", value=value)
    buttons = [deny]
    if fits_slack(card):
        buttons.insert(0, approve if fits_message(card) else review)
    if card.url:
        buttons.append(_link(card))
    return ActionsBlock(block_id="decide", elements=buttons)


def _link(card: Card) -> ButtonElement:
    return ButtonElement(text=_plain("Open in inbox"), action_id="open", url=card.url)


def _confirm(card: Card) -> ConfirmObject:
    return ConfirmObject(
        title=_plain("Run this call?"),
        text=_plain(_warning(card)),
        confirm=_plain("Approve"),
        deny=_plain("Cancel"),
    )


def _warning(card: Card) -> str:
    return f"{card.risk} risk, {card.severity} severity. The call runs once, exactly as shown."


def build_deny_view(card: Card, digest: str) -> dict[str, Any]:
    """Build the modal that asks for the reason of a denial; *digest* is that of the call as shown."""
    note = "The agent gets your reason as the tool's error. Tell it what to do instead."
    reason = PlainTextInputElement(
        action_id="reason", multiline=True, max_length=MAX_REASON, focus_on_load=True
    )
    blocks = [
        _requester(card),
        SectionBlock(text=_plain(note)),
        InputBlock(block_id="reason", label=_plain("Reason"), element=reason),
    ]
    return _view("deny", f"{card.id} {digest}", blocks)


def build_review_view(card: Card) -> dict[str, Any]:
    """Build the modal that shows all arguments and approves them."""
    blocks: list[Block] = [
        _requester(card),
        SectionBlock(fields=[_plain(field) for field in _fields(card)]),
        *_notes(card),
        *(_preformatted(piece) for piece in _pieces(card.everything)),
        _fine_print(card),
        # A modal has no confirmation dialog, so the warning is a line above its button.
        *([SectionBlock(text=_plain(_warning(card)))] if card.risk in _RISKY else []),
        # Slack shows an error below an input, so a modal needs one.
        InputBlock(
            block_id="reason", label=_plain("Reason"), optional=True,
            element=PlainTextInputElement(action_id="reason", max_length=MAX_REASON),
        ),
    ]  # fmt: skip
    return _view("approve", f"{card.id} {card.digest}", blocks)


#: callback_id -> the title of a modal and the label of its button.
MODALS = {"deny": ("Deny this call", "Deny"), "approve": ("Review this call", "Approve")}


def _view(callback: str, metadata: str, blocks: Sequence[Block]) -> dict[str, Any]:
    title, submit = MODALS[callback]
    view = View(
        type="modal", callback_id=callback, title=_plain(title), submit=_plain(submit), close=_plain("Cancel"),
        private_metadata=metadata, blocks=list(blocks),
    )  # fmt: skip
    return dict(view.to_dict())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _pieces(text: str) -> Iterator[str]:
    return (text[start : start + MODAL_BLOCK] for start in range(0, len(text), MODAL_BLOCK))


def _preformatted(text: str) -> Block:
    return RichTextBlock(elements=[RichTextPreformattedElement(elements=[_text(text)])])


def _text(text: str, *, bold: bool = False, code: bool = False) -> RichTextElementParts.Text:
    style = RichTextElementParts.TextStyle(bold=bold or None, code=code or None) if bold or code else None
    return RichTextElementParts.Text(text=text, style=style)


def _plain(text: str) -> PlainTextObject:
    return PlainTextObject(text=text, emoji=False)


def _escaped(text: str) -> str:
    """Escape the control characters of Slack's mrkdwn (&, <, >) for `text`, which notifications show."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
