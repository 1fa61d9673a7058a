"""The part of the config that the call path reads (PURE)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.call.exchange_limits import ExchangeShares
from gateway.call.hold_settings import HoldSettings
from gateway.policy.evaluation import Policy
from gateway.tools.pins import ChangeAction
from gateway.upstreams import Upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """Settings of the call path. A reload replaces the whole object."""

    policy: Policy
    upstreams: Mapping[str, Upstream]
    #: The identity and the address of each server, by name; see `config.server_identity`.
    identities: Mapping[str, str]
    addresses: Mapping[str, str]
    holds: HoldSettings
    #: The most exchanges that one agent may have in progress.
    shares: ExchangeShares
    #: Whether an agent may use a server, by their names; checked again before a held call runs.
    may_use: Callable[[str, str], bool]
    #: Returns the approvers that are an agent's owner, by the owner's name or e-mail address.
    requesters: Callable[[str | None], frozenset[str]] = lambda _: frozenset()
    #: The action for a tool whose definition is not the accepted one.
    pin: ChangeAction = ChangeAction.REASK
    #: Whether tool descriptions say that a call may need approval.
    annotate: bool = False
    #: How the audit events of allowed calls are written: post, wait or off.
    audit_allowed: str = "post"
