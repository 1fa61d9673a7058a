"""The part of the config for held calls (PURE)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRule:
    """The config's rule for clients of one name."""

    #: Seconds that a connection is kept open; None for the built-in table and the learned wait.
    wait: float | None = None
    #: Whether they get WAITING as a result without `isError`.
    as_result: bool = False


class TaskOffer(Enum):
    """The tasks that the gateway offers to clients."""

    OFF = "off"
    EXTENSION = "extension"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldSettings:
    """Settings for held calls. A reload replaces the whole object."""

    #: Seconds a connection is kept open, for all clients; None for `auto`.
    hold_for: float | None = None
    #: Rules by client name, with * and ?.
    clients: Mapping[str, ClientRule]
    tasks: TaskOffer = TaskOffer.EXTENSION
    cancel_on_disconnect: bool = False
    #: The URL of the inbox, if requesters get a link to it; else "".
    link: str = ""
    #: Seconds that a server has to answer an approved call, by server name.
    answer_within: Mapping[str, float] = field(default_factory=dict)
