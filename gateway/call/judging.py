"""How a call is judged: by the policy, and by whether its tool is the one that was accepted."""

from collections.abc import Callable
from dataclasses import replace

from approvals.model import HeldCall, State
from approvals.summaries import Summary
from gateway.call.request import CallRequest
from gateway.call.settings import ProxySettings
from gateway.policy.evaluation import Action, CallFacts, Verdict, find_shortfall
from gateway.tools.catalogue import Catalogue, Tool
from gateway.tools.pins import ChangeAction

#: Why a call of an agent does not run that the config does not name any more, or for other servers only.
REMOVED = "the agent that asked may not use this server any more"
REMOVED_SERVER = "the config does not have this server any more"
CHANGED = "the definition of this tool changed while the call waited"
GONE = "the server does not say any more that it has this tool"


def unfit(held: HeldCall | Summary, settings: ProxySettings) -> str | None:
    """Say why a call may not run under *setting*, whatever the policy says; None when it may.

    Its agent may not use the server any more, or the server is not the one that it was held for.
    """
    server = held.call.server
    if not settings.may_use(held.call.agent, server):
        return REMOVED
    if server not in settings.identities:
        return REMOVED_SERVER
    if settings.identities[server] != held.identity:
        when = "while the call waited" if held.state is State.PENDING else "after the approval"
        return f"This server's address or credentials changed {when}."
    return None


def pinned(verdict: Verdict, tool: Tool, on_change: ChangeAction) -> Verdict:
    """Return the verdict on a tool that has a flaw, or whose definition is not the accepted one: never a laxer one."""
    if tool.defect:
        reason = f"This tool is in quarantine: {tool.defect}"
        return replace(verdict, action=Action.DENY, rule="quarantine", reason=reason)
    if not tool.accepted or on_change is ChangeAction.WARN or verdict.action is Action.DENY:
        return verdict
    reason = _unlike(tool)
    if on_change is ChangeAction.QUARANTINE:
        return replace(verdict, action=Action.DENY, rule="pin", reason=reason)
    if verdict.action is Action.ALLOW:
        return replace(verdict, action=Action.REQUIRE_APPROVAL, rule=f"pin ({verdict.rule})", reason=reason)
    return verdict


def _unlike(tool: Tool) -> str:
    """Say how a tool is not the one that was accepted."""
    if not tool.hash:
        return "The server does not say just now whether this tool is still the one that was accepted"
    return "The definition of this tool changed, and nobody has accepted it yet (okayed tools --accept)"


class Judge:
    """Judges each call by the setting of the moment: when it is asked for, and again when it is about to run."""

    def __init__(self, settings: Callable[[], ProxySettings], catalogue: Catalogue) -> None:
        self._settings = settings
        self._catalogue = catalogue

    def verdict(self, request: CallRequest, tool: Tool) -> Verdict:
        """Say what becomes of a call of *tool*."""
        agent, settings = request.exchange.agent, self._settings()
        facts = CallFacts(
            server=request.exchange.server,
            tool=request.frame.name,
            agent=agent.name,
            owner=agent.owner,
            arguments=request.arguments,
            classification=tool.classification,
            declared_names=tool.member_names,
        )
        return pinned(settings.policy.evaluate(facts), tool, settings.pin)

    def objection(self, request: CallRequest, held: HeldCall) -> str | None:
        """Say why an approved call may not run after all: the tool or the policy is not what was approved."""
        if why := unfit(held, self._settings()):
            return why
        tool = self._catalogue.current_tool(held.call.server, held.call.tool)
        if tool.hash != held.definition:
            return CHANGED if tool.hash else GONE
        requesters = self._settings().requesters(held.call.owner)
        if (why := find_shortfall(self.verdict(request, tool), held, requesters)) is None and held.changes:
            # People were shown what changed, and approved: it is the definition that counts from now on.
            self._catalogue.accept(held.call.server, tool)
        return why
