"""Signals tell the replicas that share a store what another one changed. A listener then reads the store.

A signal follows the commit of the change that it reports. Signals may be lost, so no promise depends on one.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class SignalKind(StrEnum):
    """The kinds of signals. The subject of each says where the change is."""

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
    #: Reserved: sending of calls was stopped or allowed again.
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


#: The kinds that a listener may ignore; any other kind concerns every listener.
SPECIFIC = frozenset(
    {SignalKind.CALL, SignalKind.PRESENCE, SignalKind.PIN, SignalKind.CANCEL, SignalKind.LOGOUT}
)

Actions = Mapping[SignalKind, Callable[[Signal], None]]


def act_on(signal: Signal, actions: Actions) -> None:
    """Run the action of a signal's kind, if there is one; a kind that is not in `SPECIFIC` runs that of RESYNC."""
    kind = SignalKind(signal.kind) if signal.kind in SPECIFIC else SignalKind.RESYNC
    if (action := actions.get(kind)) is not None:
        action(signal)


async def follow(signals: AsyncIterator[Signal], actions: Actions) -> None:
    """Act on each signal until the store closes."""
    async for signal in signals:
        act_on(signal, actions)
