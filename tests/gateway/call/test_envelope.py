"""The params beside the arguments: approvers see them, and repeats do not change them."""

import asyncio
import json

import pytest

from approvals import digest
from approvals.model import ToolCall
from gateway.call import envelope
from gateway.wire import frames
from gateways import call, running

OURS = {"progressToken": 7, "traceparent": "00-1", "io.modelcontextprotocol/clientCapabilities": {}}


def frame(**params):
    return frames.decode(json.dumps(call("create_note", **params)).encode())


def held(**params):
    made = frame(**params)
    return ToolCall(
        agent="a",
        server="s",
        tool="create_note",
        arguments=made.arguments,
        extra_params=envelope.extra_params(made),
    )


def extra_params(**params):
    found = envelope.extra_params(frame(**params))
    return json.loads(found) if found else None


def test_members_of_the_exchange_are_not_extra_params():
    assert extra_params() is None
    assert extra_params(_meta=OURS, task={"ttl": 1}) is None


def test_an_agents_own_meta_is_an_extra_param():
    assert extra_params(_meta={**OURS, "acme/target": "prod"}) == {"_meta": {"acme/target": "prod"}}
    assert extra_params(inputResponses={"a": 1}, requestState="s") == {
        "inputResponses": {"a": 1},
        "requestState": "s",
    }


@pytest.mark.parametrize(
    "first", [{}, {"_meta": {"x": 1}}, {"_meta": {"x": 1}, "inputResponses": {"a": 1.0}}]
)
@pytest.mark.parametrize(
    "again", [{}, {"_meta": OURS}, {"_meta": {**OURS, "x": 2, "y": 3}}, {"inputResponses": {"a": 1}}]
)
def test_a_repeat_has_its_own_exchange_and_the_approved_params(first, again):
    request = frame(**again)
    sent = envelope.approved_frame(held(**first), request.id, envelope.exchange_members(request))
    whole = envelope.with_approved_params(request, held(**first))
    assert (sent.id, sent.name, sent.arguments) == (whole.id, whole.name, whole.arguments)
    assert (sent.params, sent.rest) == (whole.params, whole.rest)
    assert envelope.extra_params(sent) == held(**first).extra_params
    now = {name: value for name, value in again.get("_meta", {}).items() if name in OURS}
    assert sent.params.get("_meta", {}) == {**now, **first.get("_meta", {})}
    assert sent.progress_token == now.get("progressToken")
    assert json.loads(frames.rebuild(sent))["params"] == {
        "name": "create_note",
        "arguments": {},
        **sent.params,
    }


def test_a_waiting_call_is_sent_with_the_exact_bytes_of_its_params():
    raw = (
        b'{"jsonrpc":"2.0","id":"a\\u0062","method":"tools/call","params":{"inputResponses":{"a": 1.0},"name":"pay",'
        b'"_meta":{ "progressToken":7,"acme/x":1.50 },"task":{"ttl" :1},"arguments":{ "n":1e2 },"requestState":"\\u00e9"}}'
    )
    request = frames.decode(raw)
    call = ToolCall(
        agent="a",
        server="s",
        tool="pay",
        arguments=request.arguments,
        extra_params=envelope.extra_params(request),
    )
    sent = frames.rebuild(envelope.approved_frame(call, request.id, envelope.exchange_members(request)))
    for member in (
        b'"id":"ab"', b'"inputResponses":{"a": 1.0}', b'"_meta":{ "progressToken":7,"acme/x":1.50 }', b'"task":{"ttl" :1}',
        b'"arguments":{ "n":1e2 }', b'"requestState":"\\u00e9"',
    ):  # fmt: skip
        assert sent.count(member) == 1
    assert frames.decode(sent).params == request.params


async def test_only_the_meta_that_approvers_saw_is_approved():
    async with running() as gateway:

        def ask(target):
            meta = {"acme/target": target, "progressToken": target}
            return asyncio.ensure_future(gateway.post(call("create_note", _meta=meta)))

        first = await ask("staging")
        [one] = await gateway.held()
        assert json.loads(one.call.extra_params) == {"_meta": {"acme/target": "staging"}}
        first.close()
        second = await ask("production")
        assert [again.id for again in await gateway.held()] == [one.id]
        await gateway.review(one)
        await second.read()
        second.close()
        [ran] = gateway.ran()
        assert ran["_meta"] == {"acme/target": "staging", "progressToken": "production"}


def test_calls_with_different_extra_params_need_separate_approvals():
    calls = [held(_meta={**OURS, **own}) for own in ({}, {"x": 1}, {"x": 2})]
    assert len({digest.digest(one) for one in calls}) == 3
    assert digest.digest(held()) == digest.digest(calls[0])
