"""What the config says about judging and forwarding (PURE)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.call.exchange_limits import ExchangeShares
from gateway.call.hold_settings import HoldSettings
from gateway.policy.evaluation import Policy
from gateway.tools.pins import ChangeAction
from gateway.upstreams import Upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """What the config says about judging and forwarding; replaced whole when the config changes."""

    policy: Policy
    upstreams: Mapping[str, Upstream]
    #: The identity of each server, and where it is, by name; see `identity`.
    identities: Mapping[str, str]
    addresses: Mapping[str, str]
    holds: HoldSettings
    #: How many exchanges with servers one agent may have at once.
    shares: ExchangeShares
    #: Whether an agent of this name may still use this server; else what it had asked for does not run.
    may_use: Callable[[str, str], bool]
    #: The names of the approvers who are the person behind an agent, given that person's name or e-mail address.
    requesters: Callable[[str | None], frozenset[str]] = lambda _: frozenset()
    #: What becomes of a tool whose definition is not the accepted one.
    pin: ChangeAction = ChangeAction.REASK
    #: Whether agents read in a tool's description that a person has to approve its calls.
    annotate: bool = False
    #: Whether the audit events of allowed calls are posted, waited for, or left out: post, wait, off.
    audit_allowed: str = "post"
