"""What the config says about holding calls (PURE)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRule:
    """What the config says of the clients of one name."""

    #: Seconds a connection is kept open; None leaves that to our table and to what is learned.
    wait: float | None = None
    #: Whether they are told WAITING in a result that is no error.
    as_result: bool = False


class TaskOffer(Enum):
    """Which tasks the config lets us offer."""

    OFF = "off"
    EXTENSION = "extension"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldSettings:
    """What the config says about holding; replaced whole when the config changes."""

    #: Seconds a connection is kept open, for all clients; None is auto.
    hold_for: float | None = None
    #: By the name of the client, with * and ?.
    clients: Mapping[str, ClientRule]
    tasks: TaskOffer = TaskOffer.EXTENSION
    cancel_on_disconnect: bool = False
    #: Where people decide, for requesters that are to be shown it; "" shows it to nobody.
    link: str = ""
    #: Seconds a server has to answer an approved call, by the name of the server.
    answer_within: Mapping[str, float] = field(default_factory=dict)
