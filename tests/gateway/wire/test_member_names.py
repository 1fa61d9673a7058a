"""A server may read `AMOUNT` as `amount`: a member that resembles a known name is denied."""

import asyncio
import json
from textwrap import indent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from approvals.model import State
from approvals.safetext import remove_hidden
from gateway.app import inspection
from gateway.app.config import parse_config
from gateway.config.problems import ConfigProblems
from gateway.policy.closed_schema import close
from gateway.policy.compiling import compile_policy
from gateway.policy.conditions import ArgumentsSchema, CelExpression
from gateway.policy.evaluation import Action, CallFacts
from gateway.tools.classify.risk import classify
from gateway.wire import member_names
from gateway.wire.member_names import KnownNames, fold, schema_members
from gateways import running, text
from recording_server import RecordingServer, result
from replacing import replace
from rows import each_row

BIG = "default: allow\ntools: {pay: {when: 'args.amount > 50', action: require_approval}}"
MOST = "default: allow\ntools: {pay: {arguments: {properties: {amount: {maximum: 50}}, additionalProperties: true}}}"
PAY = {
    "name": "pay",
    "description": "Pay an amount.",
    "inputSchema": {"type": "object", "properties": {"amount": {"type": "number"}, "to": {"type": "string"}}},
}


def as_go_reads(arguments, name):
    """Return the member that Go's encoding/json stores in a field: names match without case, and the last one wins."""
    return [value for member, value in arguments.items() if member.lower() == name][-1]


def shop():
    """Return a server that parses arguments like Go, and the amounts it paid."""
    paid = []

    async def pay(request, frame):
        paid.append(as_go_reads(frame["params"]["arguments"], "amount"))
        return result(frame, {"content": [{"type": "text", "text": "paid"}]})

    return RecordingServer(tools=[PAY], on_call=pay), paid


def judge(policy, arguments, tool=PAY):
    config = parse_config(
        f"servers: {{s: {{url: 'http://s.example'}}}}\npolicy:\n{indent(policy, '  ')}", {}, str
    )
    facts = CallFacts(
        server="s", tool=tool["name"], agent="a", arguments=arguments, classification=classify(tool, ()),
        declared_names=frozenset(schema_members(tool["inputSchema"])),
    )  # fmt: skip
    return compile_policy(config).evaluate(facts)


@pytest.mark.parametrize("policy", [BIG, MOST])
@pytest.mark.parametrize("arguments", [{"amount": 1, "AMOUNT": 60000}, {"AMOUNT": 60000}])
async def test_a_case_variant_that_a_go_server_would_accept_never_reaches_it(policy, arguments):
    recorder, paid = shop()
    async with running(policy, recorder=recorder) as gateway:
        body = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "pay", "arguments": arguments},
        }
        async with gateway.http.post(recorder.url, json=body) as answer:
            assert (await answer.json())["result"]["content"][0]["text"] == "paid"
        assert paid == [60000]  # directly at the server, the call would have run
        assert text(await gateway.call("pay", arguments)) == (
            "Denied by policy: arguments.AMOUNT looks like amount, which this tool declares. NOT EXECUTED."
        )
        assert len(paid) == 1
        assert text(await gateway.call("pay", {"amount": 10})) == "paid"


async def test_a_held_call_is_judged_again_when_the_rules_know_more_names():
    async with running("default: require_approval") as gateway, asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.call("create_note", {"AMOUNT": 60000}))
        [held] = await gateway.held()
        config = parse_config(
            f"servers: {{notes: {{url: '{gateway.recorder.url}'}}}}\nstore: 'memory:'\napprovers: [{{name: alice}}]\n"
            "policy: {default: require_approval, tools: {create_note: {when: args.amount > 5, action: deny}}}", {}, str,
        )  # fmt: skip
        proxy = gateway.gateway.proxy
        proxy.settings = replace(proxy.settings, policy=compile_policy(config))
        await gateway.review(held)
        assert text(await agent).startswith("No longer valid: the policy now denies this call")
        assert (await gateway.gateway.service.get(held.id)).state is State.VOIDED
        assert gateway.ran() == []


async def test_explain_gives_the_reason():
    async with RecordingServer(tools=[PAY]) as recorder:
        config = parse_config(
            f"servers: {{s: {{url: '{recorder.url}'}}}}\nstore: 'memory:'\npolicy: {{default: allow}}",
            {},
            str,
        )
        verdict = (await inspection.explain_call(config, "s", "pay", '{"AMOUNT": 1}')).verdict
    assert (verdict.action, verdict.rule) == (Action.DENY, "alike")
    assert verdict.reason == "arguments.AMOUNT looks like amount, which this tool declares"


# Look-alike names

#: Invisible characters, and other ways to write a letter.
UNSEEN = ["\u200d", "\u00ad", "\0", "\ufe0f", "\u034f", "\U000e0061", "\u2060"]
WIDE = {chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)}
OTHERS = {"k": "\u212a", "s": "\u017f", "i": "\u2170"}
NAMES = st.sampled_from(["amount", "to", "userName", "policy_document", "Straße", "kiosk", "x-id"])


@st.composite
def respelt(draw, name):
    """Draw another spelling that some server takes for this name."""
    letters = [
        draw(
            st.sampled_from(
                [letter, letter.swapcase(), WIDE.get(letter, letter), OTHERS.get(letter.lower(), letter)]
            )
        )
        + draw(st.sampled_from(["", "", *UNSEEN]))
        for letter in name
    ]
    return draw(st.sampled_from(["", *UNSEEN])) + "".join(letters)


def nested(places, inner):
    for place in places:
        inner = [1, inner] if place == "list" else {"other": inner, "more": 1}
    return inner if isinstance(inner, dict) else {"other": inner}


PLACES = st.lists(st.sampled_from(["list", "object"]), max_size=5)


@given(st.data(), NAMES, PLACES)
def test_another_spelling_of_a_declared_name_is_denied_at_any_depth(data, name, places):
    spelling = data.draw(respelt(name))
    wrong = KnownNames([name], {}).find_ambiguous(nested(places, {spelling: 1}))
    assert (wrong is None) == (spelling == name)


@given(st.data(), NAMES, PLACES)
def test_another_spelling_of_a_name_in_a_rule_is_denied_at_any_depth(data, name, places):
    spelling = data.draw(respelt(name))
    wrong = KnownNames((), {name: "tools.pay"}).find_ambiguous(nested(places, {spelling: 1}))
    assert (wrong is None) == (spelling == name)


@given(st.data(), NAMES, PLACES)
def test_two_unknown_names_that_look_alike_in_one_object_are_denied(data, name, places):
    one, other = data.draw(respelt(name)), data.draw(respelt(name))
    wrong = KnownNames((), {}).find_ambiguous(nested(places, {one: 1, other: 2}))
    assert (wrong is None) == (one == other)


@given(st.data(), st.lists(NAMES, max_size=4, unique=True))
def test_the_order_of_members_changes_nothing(data, names):
    declared = data.draw(st.sets(NAMES))
    spellings = [data.draw(st.one_of(st.just(name), respelt(name))) for name in names]
    known = KnownNames(declared, {})
    verdicts = {
        known.find_ambiguous(dict.fromkeys(order, 1)) is None
        for order in (spellings, data.draw(st.permutations(spellings)))
    }
    assert len(verdicts) == 1


@given(st.data(), st.booleans(), st.sampled_from(["", ", additionalProperties: true"]))
def test_a_rule_with_a_schema_never_allows_another_spelling(data, beside, more):
    spelling = data.draw(respelt("amount").filter(lambda one: one != "amount"))
    policy = (
        f"default: allow\ntools: {{pay: {{arguments: {{properties: {{amount: {{maximum: 50}}}}{more}}}}}}}"
    )
    arguments = {"amount": 1, spelling: 60000} if beside else {spelling: 60000}
    undeclared = {"name": "pay", "inputSchema": {"type": "object"}}
    assert judge(policy, arguments, undeclared).action is Action.DENY


@given(st.text(max_size=8))
def test_folding_a_folded_name_changes_nothing(name):
    assert fold(fold(name)) == fold(name)


def test_a_long_name_is_read_once_however_long_its_folded_form_is(monkeypatch):
    read = []
    monkeypatch.setattr(
        member_names, "remove_hidden", lambda text: read.append(len(text)) or remove_hidden(text)
    )
    name = "\ufdfa" * 100_000  # a ligature of 18 characters
    assert len(fold(name)) == 18 * len(name)
    assert sum(read) < 1.01 * len(name)


@each_row(
    ("declared", "used", "arguments", "wrong"),
    [
        (["amount"], {}, {"amount": 1, "note": {"Note": 1}}, None),
        (["amount"], {}, {"items": [{"n": 1}, {"Amount": 1}]}, "arguments.items[1].Amount looks like amount, which this tool declares"),
        ([], {"amount": "tools.pay"}, {"AMOUNT": 1}, "arguments.AMOUNT looks like amount, which the rule tools.pay uses"),
        ([], {}, {"a": 1, "A": 2}, "arguments.A looks like a, which is also present"),
        (["Amount"], {"amount": "tools.pay"}, {"Amount": 1}, "arguments.Amount looks like amount, which the rule tools.pay uses"),
        (["Amount"], {"amount": "tools.pay"}, {"amount": 1}, "arguments.amount looks like Amount, which this tool declares"),
        (["id", "ID"], {}, {"id": 1, "in": {"ID": 1}}, None),
        (["id", "ID"], {}, {"id": 1, "ID": 1}, "arguments.ID looks like id, which is also present"),
        (["id", "ID"], {"id": "tools.x"}, {"ID": 1}, "arguments.ID looks like id, which this tool declares"),
        ([], {"id": "tools.x", "ID": "tools.y"}, {"id": 1}, "arguments.id looks like ID, which the rule tools.y uses"),
        (["id"], {}, {"\u0131d": 1}, "arguments.\u0131d looks like id, which this tool declares"),
        (["amount"], {}, {"am\u200dount": 1}, "arguments.am\\u{200D}ount looks like amount, which this tool declares"),
    ],
)  # fmt: skip
def test_the_ambiguous_member_is_reported_with_the_name_it_resembles(declared, used, arguments, wrong):
    assert KnownNames(declared, used).find_ambiguous(arguments) == wrong


def test_the_names_in_a_schema_are_its_members_at_any_depth_and_not_its_data():
    schema = {
        "properties": {"a": {"properties": {"b": {}}, "required": ["c"]}, "properties": {"type": "string"}},
        "anyOf": [{"properties": {"d": {}}}, {"items": {"properties": {"e": {}}}}],
        "$defs": {"x": {"properties": {"f": {}}}, "properties": {"properties": {"g": {}}}},
        "required": ["h", 5], "default": {"properties": {"no": {}}}, "enum": [{"required": ["no"]}],
    }  # fmt: skip
    assert set(schema_members(schema)) == {"a", "b", "c", "d", "e", "f", "g", "h", "properties"}
    assert set(schema_members(None)) == set()


@each_row(
    ("source", "names"),
    [
        ("args.amount > 50 && risk.category == 'Read'", {"amount"}),
        ("args['amount'] > 50 || args[\"to\"] == 'x.y[\"z\"]'", {"amount", "to"}),
        ("args.risk.amount > risk.limit", {"risk", "amount"}),
        ("args.payment.items.all(one, one.price < 5.0)", {"payment", "items", "price"}),
        ("has(args.force) && 'dry_run' in args", {"force", "dry_run"}),
        ("args.to.endsWith('args.nothing') && tool == 'pay'", {"to"}),
        ("agent == 'a'", set()),
    ],
)
def test_the_names_in_a_condition_are_the_members_it_uses(source, names):
    assert set(CelExpression(source).member_names) == names


def test_a_spend_limit_uses_the_name_of_its_argument():
    policy = "default: allow\ntools: {pay: {spend: {of: args.sum.total, max: 5, window: 1h}}}"
    verdict = judge(policy, {"sum": {"total": 1, "Total": 9}})
    assert verdict.reason == "arguments.sum.Total looks like total, which the rule tools.pay uses"


def test_a_matrix_row_uses_names_unless_a_rule_replaces_it():
    policy = "default: allow\nmatrix: [{when: 'args.sum > 5', action: deny}]"
    assert judge(policy, {"SUM": 9}).reason == "arguments.SUM looks like sum, which the rule matrix[0] uses"
    assert judge(f"{policy}\ntools: {{pay: {{action: allow}}}}", {"SUM": 9}).action is Action.ALLOW


# `alike: allow`


def test_a_rule_may_allow_alike_names_and_have_a_schema():
    allows = "default: allow\ntools: {pay: {arguments: {alike: allow}}}"
    assert judge(allows, {"amount": 1, "AMOUNT": 2}).action is Action.ALLOW
    beside = "default: allow\ntools: {pay: {arguments: {alike: allow, properties: {amount: {maximum: 5}}}}}"
    assert judge(beside, {"amount": 1, "AMOUNT": 2}).reason.endswith("('AMOUNT' was unexpected)")
    assert judge(beside, {"amount": 6}).action is Action.DENY
    assert judge(beside, {"amount": 5}).action is Action.ALLOW


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("{arguments: {alike: deny}}", "tools.pay.arguments.alike: the only value is allow; omit it to deny."),
        ("{arguments: {alike: allow}, when: 'true'}", "tools.pay.arguments.alike: this cannot depend on a condition; remove `when`."),
    ],
)  # fmt: skip
def test_an_invalid_alike_setting_is_reported_with_its_path(rule, why):
    with pytest.raises(ConfigProblems, match="alike") as caught:
        judge(f"default: allow\ntools: {{pay: {rule}}}", {})
    assert why in str(caught.value)


# Members that a rule's schema does not declare

INNER = {"properties": {"b": {}}}
BIG_SUM = {"properties": {"p": {"properties": {"a": {"minimum": 50}}, "required": ["a"]}}, "required": ["p"]}
DEEP = {"properties": {"p": INNER}}


@each_row(
    ("schema", "good", "bad"),
    [
        ({"properties": {"a": {}}}, {"a": 1}, {"a": 1, "x": 1}),
        ({"properties": {"a": {}}, "required": ["b"]}, {"a": 1, "b": 1}, {"b": 1, "x": 1}),
        ({"properties": {"a": INNER}}, {"a": {"b": 1}}, {"a": {"x": 1}}),
        ({"properties": {"a": {"items": INNER}}}, {"a": [{"b": 1}]}, {"a": [{"x": 1}]}),
        ({"properties": {"a": {"prefixItems": [INNER]}}}, {"a": [{"b": 1}]}, {"a": [{"x": 1}]}),
        ({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}, {"a": 1, "b": 1}, {"x": 1}),
        ({"properties": {"a": {}}, "anyOf": [{"required": ["c"]}, {"properties": {"b": {}}}]}, {"a": 1, "b": 1, "c": 1}, {"x": 1}),
        ({"properties": {"a": {}}, "patternProperties": {"^p_": {}}}, {"a": 1, "p_1": 1}, {"x": 1}),
        ({"$ref": "#/$defs/pay", "$defs": {"pay": {"properties": {"a": {}}}}}, {"a": 1}, {"x": 1}),
        ({"additionalProperties": True, "properties": {"a": INNER}}, {"x": 1, "a": {"b": 1}}, {"a": {"x": 1}}),
        ({"properties": {"a": {"anyOf": [INNER, {"type": "string"}]}}}, {"a": {"b": 1}}, {"a": {"x": 1}}),
        ({"properties": {"a": {"unevaluatedItems": INNER}}}, {"a": [{"b": 1}]}, {"a": [{"x": 1}]}),
        ({"properties": {"a": {}}, "if": {"required": ["a"]}, "then": DEEP}, {"a": 1, "p": {"b": 1}}, {"a": 1, "p": {"x": 1}}),
        ({"properties": {"a": {}}, "if": {"required": ["a"]}, "else": DEEP}, {"p": {"b": 1}}, {"p": {"x": 1}}),
        ({"properties": {"a": {}}, "dependentSchemas": {"a": DEEP}}, {"a": 1, "p": {"b": 1}}, {"a": 1, "p": {"x": 1}}),
        ({"properties": {"a": {"$ref": "#/$defs/d"}}, "$defs": {"d": DEEP}}, {"a": {"p": {"b": 1}}}, {"a": {"p": {"x": 1}}}),
        ({"properties": {"a": {"$ref": "#/$defs/d~1e"}}, "$defs": {"d/e": INNER}}, {"a": {"b": 1}}, {"a": {"x": 1}}),
        ({"properties": {"a": {"$ref": "#d"}}, "$defs": {"d": {"$anchor": "d", **INNER}}}, {"a": {"b": 1}}, {"a": {"x": 1}}),
        ({"properties": {"a": {"$dynamicRef": "#d"}}, "$defs": {"d": {"$dynamicAnchor": "d", **INNER}}}, {"a": {"b": 1}}, {"a": {"x": 1}}),
    ],
)  # fmt: skip
def test_a_schema_that_declares_members_allows_no_others(schema, good, bad):
    check = ArgumentsSchema(schema)
    assert check(good) is None
    assert "unexpected" in check(bad)


@each_row(
    "schema",
    [
        {"required": ["a"]},
        {"properties": {"a": {}}, "additionalProperties": True},
        {"properties": {"a": {}}, "unevaluatedProperties": True},
        {"maxProperties": 3},
        {"allOf": [{"properties": {"a": {}}, "additionalProperties": {}}]},
    ],
)
def test_a_schema_that_is_explicitly_open_or_declares_nothing_is_unchanged(schema):
    assert close(schema) == schema
    assert ArgumentsSchema(schema)({"a": 1, "x": 1}) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"big": BIG_SUM}, "not": {"$ref": "#/$defs/big"}},
        {"oneOf": [{"properties": {"p": {"properties": {"a": {}}}}}, {"properties": {"p": {"properties": {"x": {}}}}}]},
    ],
)  # fmt: skip
def test_closing_a_schema_never_allows_more(schema):
    assert ArgumentsSchema(schema)({"p": {"a": 60, "x": 1}}) is not None
    assert ArgumentsSchema(schema)({"p": {"a": 60}}) is not None


def test_a_recursive_schema_is_closed():
    schema = {"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"n": {"$ref": "#/$defs/n"}}}}}
    assert "unexpected" in ArgumentsSchema(json.loads(json.dumps(schema)))({"x": 1})
    assert "unexpected" in ArgumentsSchema(json.loads(json.dumps(schema)))({"n": {"n": {"x": 1}}})
