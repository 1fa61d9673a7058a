"""The inbox's views of the tools: the current verdicts, and the same texts as elsewhere."""

from approvals.web.options import ToolDetails
from gateway.app.tool_views import list_tool_views
from gateway.explain.report import build_report
from gateway.policy.evaluation import Action, CallFacts
from replacing import replace


async def test_every_known_tool_is_shown_as_everywhere_else(gateway):
    await gateway.call("get_note")
    inside = gateway.gateway
    views = {view.tool: view for view in list_tool_views(inside)}
    [server] = inside.config.servers
    assert set(views) == {tool.name for tool in inside.catalogue.listed_tools(server)}
    for tool in inside.catalogue.listed_tools(server):
        facts = CallFacts(
            server=server, tool=tool.name, agent="", arguments={}, classification=tool.classification
        )
        verdict = inside.proxy.settings.policy.evaluate(facts)
        told, view = build_report(server, tool.definition, tool.classification, verdict), views[tool.name]
        shown = view.details()
        assert (view.category, view.action, view.rule) == (
            tool.classification.category, verdict.action, verdict.rule,
        )  # fmt: skip
        assert (shown.does, shown.why, shown.advice) == (told.does, told.why, told.advice)
        assert (shown.confidence, shown.applies) == (told.confidence, told.applies)
        assert shown.counted == told.parameters.summary
        assert [question for question, _, _ in shown.answers] == [one.question for one in told.answers]
        assert [yaml for _, _, yaml in shown.answers] == [one.yaml for one in told.answers]
        assert [name for name, *_ in shown.parameters] == [one.name for one in told.parameters.shown]
    assert views["delete_note"].action is Action.DENY
    assert views["get_note"].action is Action.ALLOW
    assert views["delete_note"].details().applies[1] == "Reason: notes are kept."


async def test_icons_of_a_tool_are_never_shown(gateway):
    for tool in gateway.recorder.tools:
        tool["icons"] = [{"src": "javascript:alert(1)"}, {"src": "http://tracker.example/i.png"}]
    await gateway.call("get_note")
    for view in list_tool_views(gateway.gateway):
        told = f"{replace(view, details=ToolDetails)} {view.details()}"
        assert "javascript" not in told
        assert "tracker" not in told


async def test_a_tool_with_a_changed_definition_is_shown_with_the_proxys_verdict(gateway):
    await gateway.call("get_note")
    gateway.recorder.tools[0]["description"] = "Get a note, and more."
    gateway.recorder.tools[1]["inputSchema"] = {"type": "wish"}
    [server] = gateway.gateway.config.servers
    gateway.gateway.catalogue.mark_stale(server)
    await gateway.gateway.catalogue.refresh(server)
    views = {view.tool: view for view in list_tool_views(gateway.gateway)}
    assert (views["get_note"].action, views["get_note"].rule) == (Action.REQUIRE_APPROVAL, "pin (matrix[0])")
    assert "not the accepted one; otherwise by matrix[0]" in views["get_note"].details().applies[0]
    assert views["get_note"].changed
    assert '+  "description": "Get a note, and more.",' in views["get_note"].details().changes
    assert not views["delete_note"].changed
    assert views["delete_note"].details().changes == ""
    gateway.gateway.accept(server, "get_note", "alice")
    [accepted] = [view for view in list_tool_views(gateway.gateway) if view.tool == "get_note"]
    assert (accepted.action, accepted.changed) == (Action.ALLOW, False)
    assert accepted.definition == views["get_note"].definition
    assert (views["create_note"].action, views["create_note"].rule) == (Action.DENY, "quarantine")
