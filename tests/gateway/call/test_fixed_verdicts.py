"""A cached verdict is the verdict that the policy would give now: whatever was judged, reloaded or accepted before."""

import json
from types import SimpleNamespace

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.app.config import parse_config
from gateway.auth.agents import Agent
from gateway.call.judging import Judge, restrict
from gateway.policy.compiling import compile_policy
from gateway.policy.evaluation import TOOL_NAME, Action, CallFacts, Verdict, _known_names
from gateway.tools.catalogue import Tool
from gateway.tools.classify.risk import classify
from gateway.tools.pins import ChangeAction
from replacing import replace

NAMES = ["get_note", "put_note", "drop_note", "not a name"]
SCHEMA = {"properties": {"n": {"type": "number"}, "text": {"type": "string"}}}
members = st.dictionaries(
    st.sampled_from(["n", "N", "text", "Text", "ｎ", "other"]),
    st.sampled_from([0, 5, "x", {"N": 1}, [{"n": 1}]]),
    max_size=3,
)
rules = st.fixed_dictionaries({}, optional={
    "action": st.sampled_from(["allow", "deny", "require_approval"]),
    "when": st.sampled_from(["args.n > 1", "agent == 'ci'", "tool == 'get_note'", "risk.category == 'Read'"]),
    "rate_limit": st.just({"max": 2, "window": 60}),
    "spend": st.just({"of": "args.n", "max": 9, "window": 60}),
    "arguments": st.sampled_from([{"required": ["n"]}, {"alike": "allow"}, {"properties": {"n": {"maximum": 2}}}]),
    "reason": st.just("because"),
}).filter(lambda rule: not ("when" in rule and "alike" in rule.get("arguments", {})))  # fmt: skip
rows = st.tuples(rules, st.sampled_from(["Read", "Write", "Destructive"])).map(
    lambda pair: {"action": "allow", **pair[0], "category": [pair[1]]}
)
policies = st.fixed_dictionaries({
    "default": st.sampled_from(["allow", "deny", "require_approval"]),
    "matrix": st.lists(rows, max_size=3),
    "tools": st.dictionaries(st.sampled_from(["*", "get_*", "notes/put_note", "drop_note"]), rules, max_size=3),
    "hide": st.lists(st.sampled_from(["drop_*", "get_note"]), max_size=1),
})  # fmt: skip
calls = st.tuples(st.just("call"), st.sampled_from(NAMES), st.sampled_from(["ci", "other"]), members)
changes = st.tuples(
    st.sampled_from(["reload", "pin", "classify", "declare", "change", "accept", "quarantine"]),
    st.sampled_from(NAMES), st.integers(0, 1), st.none(),
)  # fmt: skip


def compiled(policy):
    text = (
        f"servers: {{notes: {{command: [x]}}}}\napprovers: [{{name: alice}}]\npolicy: {json.dumps(policy)}\n"
    )
    return compile_policy(parse_config(text, {}, str))


def build_tool(name, hint="", schema=None):
    definition = {"name": name, "description": hint, "inputSchema": schema or {}}
    names = frozenset((schema or {}).get("properties", ()))
    return Tool(
        name=name, definition=definition, hash="h", classification=classify(definition, ()), member_names=names,
    )  # fmt: skip


def judge_without_cache(policy, facts):
    """Judge by a policy object that has judged nothing, and by its rules alone."""
    if not TOOL_NAME.fullmatch(facts.tool) or policy.is_hidden(facts.server, facts.tool):
        return policy.evaluate(facts)
    named = policy._rules_for(facts.server, facts.tool)
    known = _known_names(policy._possible_rules(named, facts.classification), facts.declared_names)
    if (ambiguous := known.find_ambiguous(facts.arguments)) is not None:
        return policy._deny("alike", ambiguous)
    return policy._judge(facts, named)


def change_tool(change, tool, choice):
    match change:
        case "classify":
            return replace(tool, classification=classify({"name": ["get_x", "drop_x"][choice]}, ()))
        case "declare":
            return replace(tool, member_names=frozenset([["n", "text"], ["N"]][choice]))
        case "change":
            return replace(tool, accepted=b"{}", hash=["h2", ""][choice])
        case "accept":
            return replace(tool, accepted=b"")
    return replace(tool, defect=["", "it hides text"][choice])


@given(policies, policies, st.lists(st.one_of(calls, calls, changes), max_size=25))
@example(
    {"default": "allow"}, {"default": "deny"},
    [("call", "get_note", "ci", {}), ("reload", "get_note", 1, None), ("call", "get_note", "ci", {})],
)  # fmt: skip
@example(
    {"default": "deny", "matrix": [{"category": ["Read"], "action": "allow"}]}, {"default": "deny"},
    [("call", "get_note", "ci", {}), ("classify", "get_note", 1, None), ("call", "get_note", "ci", {})],
)  # fmt: skip
@example(
    {"default": "allow"}, {"default": "deny"},
    [("call", "get_note", "ci", {"N": 1}), ("declare", "get_note", 1, None), ("call", "get_note", "ci", {"N": 1})],
)  # fmt: skip
@example(
    {"default": "deny", "tools": {"*": {"when": "agent == 'ci'", "action": "allow"}}}, {"default": "deny"},
    [("call", "get_note", "ci", {}), ("call", "get_note", "other", {})],
)  # fmt: skip
def test_a_cached_verdict_equals_the_verdict_without_a_cache(first, second, steps):
    settings = SimpleNamespace(policy=compiled(first), pin=ChangeAction.REASK)
    judge = Judge(lambda: settings, None)
    tools = {name: build_tool(name, schema=SCHEMA) for name in NAMES}
    written = first
    for step, name, given_now, arguments in steps:
        if step == "reload":
            written = [first, second][given_now]
            settings = SimpleNamespace(policy=compiled(written), pin=settings.pin)
        elif step == "pin":
            settings.pin = [ChangeAction.QUARANTINE, ChangeAction.WARN][given_now]
        elif step != "call":
            tools[name] = change_tool(step, tools[name], given_now)
        else:
            tool = tools[name]
            exchange = SimpleNamespace(agent=Agent(name=given_now), server="notes")
            request = SimpleNamespace(
                exchange=exchange, frame=SimpleNamespace(name=name), arguments=arguments
            )
            facts = CallFacts(
                server="notes", tool=name, agent=given_now, arguments=arguments,
                classification=tool.classification, declared_names=tool.member_names,
            )  # fmt: skip
            expected = restrict(judge_without_cache(compiled(written), facts), tool, settings.pin)
            assert judge.verdict(request, tool) == expected


def count_judged(policy, monkeypatch):
    """Return the list of calls that *policy* judges by its rules from now on."""
    judged = []
    judge = policy._judge

    def note(facts, named):
        judged.append(facts.tool)
        return judge(facts, named)

    monkeypatch.setattr(policy, "_judge", note)
    return judged


def test_a_verdict_that_no_argument_can_change_is_judged_once(monkeypatch):
    policy = compiled(
        {
            "default": "deny",
            "tools": {
                "get_note": {"action": "allow"},
                "put_note": {"rate_limit": {"max": 2, "window": 60}, "action": "allow"},
            },
        }
    )
    judged = count_judged(policy, monkeypatch)
    for name in ("get_note", "put_note"):
        tool = build_tool(name)
        for _ in range(3):
            facts = CallFacts(
                server="notes", tool=name, agent="ci", arguments={}, classification=tool.classification
            )
            assert isinstance(policy.evaluate(facts), Verdict)
    assert judged == ["get_note", "put_note", "put_note", "put_note"]


def test_look_alikes_are_found_in_each_call_of_a_tool_with_a_fixed_verdict():
    policy, tool = compiled({"default": "allow"}), build_tool("get_note", schema=SCHEMA)

    def verdict(arguments):
        return policy.evaluate(CallFacts(
            server="notes", tool="get_note", agent="ci", arguments=arguments, classification=tool.classification,
            declared_names=tool.member_names,
        ))  # fmt: skip

    assert verdict({"n": 1}).action is Action.ALLOW
    assert verdict({"N": 1}).rule == "alike"
    assert verdict({"n": 1}).action is Action.ALLOW
