"""Sliding windows: at most so many uses in any span of so many seconds (PURE)."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

#: The most keys that are remembered; beyond it the ones unused the longest are forgotten.
MAX_KEYS = 100_000


class Per(StrEnum):
    """Whose uses are counted together."""

    SESSION = "session"
    AGENT = "agent"
    EVERYONE = "everyone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """At most `max` uses in any `window` seconds."""

    #: Names the rule; uses are counted for each of its tools apart.
    name: str
    max: int
    window: float
    per: Per = Per.SESSION
    #: Whether a call over the limit is held for a person; else it is denied.
    ask: bool = False

    @property
    def text(self) -> str:
        """The limit as people say it."""
        return f"{self.max} call{'' if self.max == 1 else 's'} per {self.window:g} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Who uses it."""

    agent: str
    session: str
    server: str
    tool: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exceeded:
    """The limit that stands in the way, and the seconds until it does no longer."""

    limit: Limit
    retry_after: float


def key(limit: Limit, scope: Scope) -> str:
    """Return the name under which uses of *limit* by *scope* are counted."""
    match limit.per:
        case Per.EVERYONE:
            who = ""
        case Per.AGENT:
            who = scope.agent
        case _:
            who = f"{scope.agent}\x1f{scope.session}"
    return f"{limit.name}\x1f{scope.server}\x1f{scope.tool}\x1f{limit.per}\x1f{who}"


class Windows:
    """The uses of every limit that still count. Time never goes back: an earlier clock counts as the latest seen."""

    def __init__(self, hits: Iterable[tuple[str, float]] = ()) -> None:
        self._uses: dict[str, deque[float]] = {}
        self._now = 0.0
        for name, at in hits:
            self._uses.setdefault(name, deque()).append(at)
            self._now = max(self._now, at)

    def take(self, limits: Sequence[Limit], scope: Scope, now: float) -> Exceeded | None:
        """Count one use of all *limits*, or of none and return the one that is exceeded."""
        self._now = max(self._now, now)
        if (exceeded := self.peek(limits, scope, now)) is not None:
            return exceeded
        for limit in limits:
            self._count(key(limit, scope))
        return None

    def peek(self, limits: Sequence[Limit], scope: Scope, now: float) -> Exceeded | None:
        """Return the limit that is exceeded, if one is; the one to wait longest for."""
        self._now = max(self._now, now)
        over = [exceeded for limit in limits if (exceeded := self._over(limit, scope)) is not None]
        return max(over, key=lambda exceeded: (not exceeded.limit.ask, exceeded.retry_after), default=None)

    def _over(self, limit: Limit, scope: Scope) -> Exceeded | None:
        uses = self._uses.get(key(limit, scope), deque())
        while uses and uses[0] <= self._now - limit.window:
            uses.popleft()
        if len(uses) < limit.max:
            return None
        oldest = uses[-limit.max] + limit.window if limit.max else self._now + limit.window
        return Exceeded(limit=limit, retry_after=oldest - self._now)

    def _count(self, name: str) -> None:
        uses = self._uses.pop(name, deque())
        uses.append(self._now)
        self._uses[name] = uses  # the last in the dict is the one used last
        if len(self._uses) > MAX_KEYS:
            del self._uses[next(iter(self._uses))]
