"""Lists of held calls: their pages, their filters, and the one index that each list walks (PURE)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar

from approvals.model import CallId, State

#: How many calls a page looks at, at most. So a search that finds nothing costs no more in a long history.
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
    """Split the given filters into those that an index answers, and those that are checked on each row.

    A list walks the index of its states; else that of its agent, tool or server; else it walks all calls.
    """
    checked = {name: value for name, value in matching.items() if value}
    index = next((name for name in ("agent", "tool", "server") if name in checked and not states), "")
    walked = {name: checked.pop(name) for name in ("before", index) if name in checked}
    return walked, checked
