"""Judges a call by the policy and by the accepted definition of its tool."""

from collections.abc import Callable
from dataclasses import replace

from approvals.model import HeldCall, State
from approvals.summaries import Summary
from gateway.call.request import CallRequest
from gateway.call.settings import ProxySettings
from gateway.policy.evaluation import Action, CallFacts, Verdict, find_shortfall
from gateway.tools.catalogue import Catalogue, Tool
from gateway.tools.pins import ChangeAction
from gateway.wire import frames

AGENT_REMOVED = "the agent may no longer use this server"
SERVER_REMOVED = "the server is no longer in the config"
TOOL_CHANGED = "the definition of this tool changed while the call waited"
TOOL_GONE = "the server no longer lists this tool"


def config_objection(held: HeldCall | Summary, settings: ProxySettings) -> str | None:
    """Return why *settings* no longer let a held call run, before its policy is evaluated; None if they do.

    The agent may no longer use the server, the config no longer has it, or its identity is not the approved one.
    """
    server = held.call.server
    if not settings.may_use(held.call.agent, server):
        return AGENT_REMOVED
    if server not in settings.identities:
        return SERVER_REMOVED
    if settings.identities[server] != held.identity:
        when = "while the call waited" if held.state is State.PENDING else "after the approval"
        return f"This server's address or credentials changed {when}."
    return None


def restrict(verdict: Verdict, tool: Tool, on_change: ChangeAction) -> Verdict:
    """Return the verdict for a tool that is defective or not the accepted one; it is never more permissive."""
    if tool.defect:
        reason = f"This tool is in quarantine: {tool.defect}"
        return replace(verdict, action=Action.DENY, rule="quarantine", reason=reason)
    if not tool.accepted or on_change is ChangeAction.WARN or verdict.action is Action.DENY:
        return verdict
    reason = _difference_in_words(tool)
    if on_change is ChangeAction.QUARANTINE:
        return replace(verdict, action=Action.DENY, rule="pin", reason=reason)
    if verdict.action is Action.ALLOW:
        return replace(verdict, action=Action.REQUIRE_APPROVAL, rule=f"pin ({verdict.rule})", reason=reason)
    return verdict


def _difference_in_words(tool: Tool) -> str:
    """Describe how a tool differs from the accepted one."""
    if not tool.hash:
        return "The server cannot confirm right now that this is still the accepted tool"
    return "The definition of this tool changed and is not accepted yet (okayed tools --accept)"


class Judge:
    """Judges each call by the current settings: when it arrives, and again before it runs."""

    def __init__(self, settings: Callable[[], ProxySettings], catalogue: Catalogue) -> None:
        self._settings = settings
        self._catalogue = catalogue

    def verdict(self, request: CallRequest, tool: Tool) -> Verdict:
        """Return the verdict on a call of *tool*."""
        agent = request.exchange.agent
        facts = CallFacts(
            server=request.exchange.server,
            tool=request.frame.name,
            agent=agent.name,
            owner=agent.owner,
            arguments=request.arguments,
            classification=tool.classification,
            declared_names=tool.member_names,
        )
        return self._evaluate(facts, tool)

    def objection(self, held: HeldCall) -> str | None:
        """Return why an approved call may not run: the config, its tool or the policy changed. None if it may."""
        if why := config_objection(held, self._settings()):
            return why
        tool = self._catalogue.current_tool(held.call.server, held.call.tool)
        if tool.hash != held.definition:
            return TOOL_CHANGED if tool.hash else TOOL_GONE
        why = self._policy_objection(held, tool)
        if why is None and held.changes:
            # The approvers saw the change, so the new definition is now the accepted one.
            self._catalogue.accept(held.call.server, tool)
        return why

    def _policy_objection(self, held: HeldCall, tool: Tool) -> str | None:
        call = held.call
        facts = CallFacts(
            server=call.server,
            tool=call.tool,
            agent=call.agent,
            owner=call.owner,
            arguments=frames.parse_json(call.arguments),
            classification=tool.classification,
            declared_names=tool.member_names,
        )
        return find_shortfall(self._evaluate(facts, tool), held, self._settings().requesters(call.owner))

    def _evaluate(self, facts: CallFacts, tool: Tool) -> Verdict:
        settings = self._settings()
        return restrict(settings.policy.evaluate(facts), tool, settings.pin)
