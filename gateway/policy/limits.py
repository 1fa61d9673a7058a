"""Sliding-window limits on the number of calls, or on the sum of an argument (PURE)."""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from math import inf
from typing import Any

from gateway.config.options import RateLimitOptions, SpendOptions

#: The most windows kept; beyond that, the least recently used is dropped.
MAX_KEYS = 100_000
#: The path of an argument to add up.
AMOUNT = re.compile(r"args(\.[^.\s]+)+")


class LimitScope(StrEnum):
    """The calls that share a window: the calls of a session, of an agent, or all calls."""

    SESSION = "session"
    AGENT = "agent"
    EVERYONE = "everyone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """At most `max` calls, or a sum of `max`, in any `window` seconds."""

    #: The place of the rule.
    name: str
    max: float
    window: float
    per: LimitScope = LimitScope.SESSION
    #: Whether a call over the limit is held for approval instead of denied.
    needs_approval: bool = False
    #: Whether the rule's tools share a window; else each has its own.
    shared: bool = False
    #: The argument to add up, such as `args.amount`; None to count calls.
    argument: str | None = None
    #: The reason that a call over the limit gets.
    reason: str = ""
    #: The amount that this call adds.
    amount: float = 1

    @property
    def text(self) -> str:
        """The limit in words."""
        most = f"{Decimal(str(self.max)).normalize():f}"
        if self.argument is not None:
            return f"{self.argument} may add up to {most} per {self.window:g} s"
        return f"{most} call{'' if self.max == 1 else 's'} per {self.window:g} s"


def build_limit(rule: str, options: RateLimitOptions | SpendOptions, window: float, reason: str) -> Limit:
    """Build the limit of a rule; *window* is in seconds."""
    spend = options if isinstance(options, SpendOptions) else None
    return Limit(
        name=rule if spend is None else f"{rule}.spend",
        max=options.max,
        window=window,
        per=LimitScope(options.per),
        needs_approval=options.on_exceed == "require_approval",
        shared=options.shared,
        argument=None if spend is None else spend.of,
        reason=reason,
    )


def find_limit_problems(limit: Limit) -> Iterator[tuple[str, str]]:
    """Yield the invalid options of a limit, each with a message."""
    if not 0 <= limit.max < inf:
        yield "max", "this must not be negative." if limit.max < 0 else "this must be finite."
    if limit.argument is not None and not AMOUNT.fullmatch(limit.argument):
        yield "of", "name the argument to add up, such as args.amount."


def with_amount(limit: Limit, arguments: Mapping[str, Any]) -> Limit:
    """Return *limit* with the amount that a call with these arguments adds."""
    return limit if limit.argument is None else replace(limit, amount=_argument_at(arguments, limit.argument))


def find_bad_amount(limit: Limit, arguments: Mapping[str, Any]) -> str | None:
    """Return why the argument that *limit* adds up is invalid, or None."""
    if limit.argument is None:
        return None
    found = _argument_at(arguments, limit.argument)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return f"{limit.argument} must be a number, because it is added up"
    if not 0 <= found < inf:
        return f"{limit.argument} must not be negative, because it is added up"
    return None


def _argument_at(arguments: Mapping[str, Any], path: str) -> Any:
    found: Any = arguments
    for part in path.split(".")[1:]:
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitUser:
    """The caller and the tool of one use of a limit."""

    agent: str
    session: str
    server: str
    tool: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExceededLimit:
    """An exceeded limit, and the seconds until the call fits (inf: never)."""

    limit: Limit
    retry_after: float


def window_key(limit: Limit, user: LimitUser) -> str:
    """Return the key of the window in which *limit* counts a use by *user*."""
    match limit.per:
        case LimitScope.EVERYONE:
            owner = ""
        case LimitScope.AGENT:
            owner = user.agent
        case _:
            owner = f"{user.agent}\x1f{user.session}"
    where = "" if limit.shared else f"{user.server}\x1f{user.tool}"
    return f"{limit.name}\x1f{where}\x1f{limit.per}\x1f{owner}"


class _Window:
    """The uses in one window, oldest first, and their exact sum, so that 0.1 + 0.2 is 0.3."""

    def __init__(self) -> None:
        self.kept: deque[tuple[float, Fraction]] = deque()
        self.total = Fraction(0)

    def add(self, at: float, amount: float) -> None:
        self.kept.append((at, _to_fraction(amount)))
        self.total += self.kept[-1][1]

    def drop(self, until: float) -> None:
        while self.kept and self.kept[0][0] <= until:
            self.total -= self.kept.popleft()[1]

    def fits_at(self, limit: Limit) -> float:
        """Return the time at which a use of *limit* fits: -inf for now, inf for never."""
        over = self.total + _to_fraction(limit.amount) - _to_fraction(limit.max)
        if over <= 0:
            return -inf
        for at, amount in self.kept:
            over -= amount
            if over <= 0:
                return at + limit.window
        return inf


def _to_fraction(amount: float) -> Fraction:
    return Fraction(amount if isinstance(amount, int) else repr(amount))


class Windows:
    """The windows of all limits. Time never goes back: an earlier time is treated as the latest one seen."""

    def __init__(self, hits: Iterable[tuple[str, float, float]] = (), *, most: int = MAX_KEYS) -> None:
        """*hits* are stored uses: window key, time, amount."""
        self._most = most
        self._uses: dict[str, _Window] = {}
        self._now = 0.0
        for name, at, amount in hits:
            self._uses.setdefault(name, _Window()).add(at, amount)
            self._now = max(self._now, at)

    def take(self, limits: Sequence[Limit], user: LimitUser, now: float) -> ExceededLimit | None:
        """Count one use of all *limits* at *now*, in seconds; if any is exceeded, count none and return it."""
        self._now = max(self._now, now)
        if (exceeded := self.peek(limits, user, now)) is not None:
            return exceeded
        for limit in limits:
            if limit.amount:
                self._count(window_key(limit, user), limit.amount)
        return None

    def peek(self, limits: Sequence[Limit], user: LimitUser, now: float) -> ExceededLimit | None:
        """Return the exceeded limit, or None: a limit that denies before others, then the longest wait."""
        self._now = max(self._now, now)
        over = [exceeded for limit in limits if (exceeded := self._over(limit, user)) is not None]
        return max(
            over, key=lambda exceeded: (not exceeded.limit.needs_approval, exceeded.retry_after), default=None
        )

    def _over(self, limit: Limit, user: LimitUser) -> ExceededLimit | None:
        uses = self._uses.get(window_key(limit, user), _Window())
        uses.drop(self._now - limit.window)
        fits_at = uses.fits_at(limit)
        return None if fits_at == -inf else ExceededLimit(limit=limit, retry_after=fits_at - self._now)

    def _count(self, name: str, amount: float) -> None:
        uses = self._uses.pop(name, _Window())
        uses.add(self._now, amount)
        self._uses[name] = uses  # the dict is in order of use
        if len(self._uses) > self._most:
            del self._uses[next(iter(self._uses))]
