"""Builds the data of the inbox's tool pages: each tool with its explanation and the policy's verdict."""

from functools import partial

from approvals.web.options import ToolDetails, ToolView
from gateway.app.gateway import Gateway
from gateway.call.judging import restrict
from gateway.explain.report import build_report
from gateway.policy.evaluation import CallFacts, Verdict
from gateway.tools.catalogue import Tool
from gateway.tools.pins import format_diff


def list_tool_views(gateway: Gateway) -> list[ToolView]:
    """Return every known tool, with the policy's verdict on a call without arguments."""
    settings = gateway.proxy.settings
    return [
        _view(
            server,
            tool,
            restrict(settings.policy.evaluate(_call_without_arguments(server, tool)), tool, settings.pin),
        )
        for server in gateway.config.servers
        for tool in gateway.catalogue.listed_tools(server)
    ]


def _call_without_arguments(server: str, tool: Tool) -> CallFacts:
    return CallFacts(
        server=server,
        tool=tool.name,
        agent="",
        arguments={},
        classification=tool.classification,
        declared_names=tool.member_names,
    )


def _view(server: str, tool: Tool, verdict: Verdict) -> ToolView:
    classification = tool.classification
    return ToolView(
        server=server,
        tool=tool.name,
        description=str(tool.definition.get("description") or ""),
        category=classification.category,
        risk=classification.risk,
        severity=classification.severity,
        evidence=classification.evidence,
        action=verdict.action,
        rule=verdict.rule,
        definition=tool.hash,
        changed=bool(tool.accepted),
        details=partial(_details, server, tool, verdict),
    )


def _details(server: str, tool: Tool, verdict: Verdict) -> ToolDetails:
    report = build_report(server, tool.definition, tool.classification, verdict)
    return ToolDetails(
        does=report.does,
        changes=format_diff(tool.accepted, tool.canonical) if tool.accepted else "",
        why=report.why,
        advice=report.advice,
        confidence=report.confidence,
        counted=report.parameters.summary,
        parameters=tuple(
            (parameter.name, parameter.type, parameter.required, parameter.line)
            for parameter in report.parameters.shown
        ),
        applies=report.applies,
        answers=tuple((answer.question, answer.text, answer.yaml) for answer in report.answers),
    )
