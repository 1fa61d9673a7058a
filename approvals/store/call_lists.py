"""Lists of held calls: their pages, their filters, and the index that each list reads (PURE)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar

from approvals.model import CallId, State

#: The most calls that a page looks at, so that a search without a match is as fast in a long history.
MAX_SEARCHED = 10_000
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """A part of a list, newest first. It may be short, or even empty, and still have a next page."""

    items: Sequence[Item]
    #: The `before` of the next page; None at the end of the list.
    next: CallId | None


class CallFilter(TypedDict, total=False):
    """Selects calls; a member that is left out, or "", matches every call."""

    #: Only calls that were added before this one.
    before: CallId | None
    tool: str
    agent: str
    server: str
    #: Searched in tool, agent and id, with its case.
    text: str


def split_filter(
    states: Sequence[State], matching: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Split the given filters into those that an index answers, and those that every row is compared with.

    A list reads the index of its states; without states, that of its agent, tool or server; else all calls.
    """
    row_filters = {name: value for name, value in matching.items() if value}
    index = next((name for name in ("agent", "tool", "server") if name in row_filters and not states), "")
    index_filters = {name: row_filters.pop(name) for name in ("before", index) if name in row_filters}
    return index_filters, row_filters
