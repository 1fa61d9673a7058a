"""Signals: short messages by which the replicas that share a store learn of changes; they then read the store.

A signal follows the commit of the change that it reports. Signals may be lost, so no promise depends on one.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class SignalKind(StrEnum):
    """The kinds of signals. The subject of a signal says what changed."""

    #: A held call changed; the subject is its id.
    CALL = "call"
    #: Clients began or ceased to wait for calls; without a subject, since many come and go at once.
    PRESENCE = "presence"
    #: A tool definition was accepted; the subject is its server's name.
    PIN = "pin"
    #: A client cancelled a request; the subject is the encoded key of the request.
    CANCEL = "cancel"
    #: A login session ended; the subject is the SHA-256 of its secret.
    LOGOUT = "logout"
    #: Reserved: forwarding was stopped, or allowed again.
    FREEZE = "freeze"
    #: Signals may have been lost.
    RESYNC = "resync"


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal."""

    #: A `SignalKind`, or a kind that only newer replicas know.
    kind: str
    subject: str = ""
    #: The id of the replica that sent it; "" if unknown.
    origin: str = ""


#: The kinds that a listener without an action for them ignores; any other kind is treated as RESYNC.
IGNORABLE = frozenset(
    {SignalKind.CALL, SignalKind.PRESENCE, SignalKind.PIN, SignalKind.CANCEL, SignalKind.LOGOUT}
)

Actions = Mapping[SignalKind, Callable[[Signal], None]]


def act_on(signal: Signal, actions: Actions) -> None:
    """Run the action for a signal, if there is one. A kind that is not in `IGNORABLE` runs the action for RESYNC."""
    kind = SignalKind(signal.kind) if signal.kind in IGNORABLE else SignalKind.RESYNC
    if (action := actions.get(kind)) is not None:
        action(signal)


async def follow(signals: AsyncIterator[Signal], actions: Actions) -> None:
    """Act on each signal until the store closes."""
    async for signal in signals:
        act_on(signal, actions)
