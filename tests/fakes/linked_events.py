"""Links events to a trail, as the store does."""

from approvals.audit import encode_event, from_row


def link_event(event, seq, prev, key=b""):
    """Return *event* as number *seq* of the trail, after the event with the hash *prev*."""
    return from_row(encode_event(event).to_row(seq, prev, key))
