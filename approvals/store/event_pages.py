"""Pages of a search in the audit trail (PURE)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from approvals.model import AuditEvent

#: The most events that a page looks at, unless it looks at the events of one call.
MAX_SEARCHED = 10_000


class EventFilter(TypedDict, total=False):
    """Selects audit events; a member that is left out, or "" or 0, matches every event."""

    #: Only events at or after this time.
    since: float
    tool: str
    agent: str
    call: str


@dataclass(frozen=True, slots=True)
class EventPage:
    """The matching events of a part of the trail, in order. It may be empty before the end of the trail."""

    events: Sequence[AuditEvent]
    #: The `after` of the next page.
    next: int
    #: Whether the trail had no later event.
    at_end: bool


def find_page_end(start: int, last: int, matching: EventFilter) -> int:
    """Return the number of the last event that a page may look at, after event *start* of a trail that ends with *last*."""
    return max(start, last if matching.get("call") else min(start + MAX_SEARCHED, last))


def build_page(found: Sequence[AuditEvent], limit: int, end: int, last: int) -> EventPage:
    """Build the page of at most *limit* events that were found up to event *end*."""
    following = found[-1].seq if len(found) == limit else end
    return EventPage(found, following, at_end=following >= last)
