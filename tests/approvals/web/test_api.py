"""The JSON API: every route, every error, and no access with a cookie."""

import json
import re
from datetime import UTC, datetime

import pytest

from approvals.model import State
from approvals.store.memory import store as memory
from approvals.web import api
from inbox import Inbox, token

JSON = {"Content-Type": "application/json"}


async def ask(client, path, method="GET", **more):
    async with client.request(method, f"/api/v1{path}", **more) as got:
        return got.status, await got.json(content_type=None)


def stamp(at):
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


async def test_a_call_is_shown_whole(inbox):
    raw = b'{"n": 1e400, "big": 12345678901234567890.10, "text": "\xe2\x80\xae"}'
    call = await inbox.hold(arguments=raw)
    program = await inbox.program()
    status, shown = await ask(program, f"/calls/{call.id}")
    assert status == 200
    assert shown.pop("arguments") == json.loads(raw)
    assert shown == {
        "id": call.id,
        "state": "pending",
        "version": 1,
        "server": "iam",
        "address": "",
        "tool": "put_user_policy",
        "agent": "ci-bot",
        "owner": "maria",
        "arguments_text": raw.decode(),
        "extra_params": None,
        "hidden": 0,
        "whole": True,
        "client_metadata": "",
        "digest": call.digest,
        "category": "Write",
        "risk": "High",
        "severity": "critical",
        "evidence": ["policy: says who may do what"],
        "rule": "tools.put_user_policy",
        "reason": "IAM changes need a second pair of eyes",
        "created_at": stamp(call.created_at),
        "expires_at": stamp(call.expires_at),
        "decided_at": None,
        "settled_at": None,
        "reviews": [],
        "needed": 1,
        "outcome": None,
        "attended": True,
        "collected": False,
        "changes": "",
        "twin": None,
        "note": "",
        "url": f"{inbox.here}/calls/{call.id}",
    }


async def test_the_arguments_cross_byte_for_byte(inbox):
    raw = b'{"n":  1.0,"m":12345678901234567890}'
    call = await inbox.hold(arguments=raw)
    program = await inbox.program()
    async with program.get(f"/api/v1/calls/{call.id}") as got:
        assert raw in await got.read()


async def test_an_approval_without_a_digest_is_refused_and_a_denial_is_taken(inbox):
    call, program = await inbox.hold(), await inbox.program()
    assert await ask(program, f"/calls/{call.id}/approve", "POST", json={"reason": "x"}) == (
        400,
        {"error": "Object missing required field `digest`."},
    )
    status, shown = await ask(program, f"/calls/{call.id}/deny", "POST", json={"reason": "x"})
    assert (status, shown["state"]) == (200, "denied")


SECRETS = b'{"user": "bob", "password": "hunter2"}'


async def test_a_program_sees_secrets_only_after_a_recorded_reveal(inbox):
    call = await inbox.hold(arguments=SECRETS, extra_params=b'{"_meta":{"token":"t0psecret"}}')
    program, path = await inbox.program(), f"/calls/{call.id}"
    _, shown = await ask(program, path)
    assert (shown["hidden"], shown["arguments"]) == (2, {"user": "bob", "password": "[redacted]"})
    listed = await ask(program, "/calls")
    assert "hunter2" not in json.dumps([shown, listed])
    assert "t0psecret" not in json.dumps([shown, listed])
    _, exact = await ask(program, f"{path}/reveal", "POST")
    assert (exact["hidden"], exact["arguments_text"]) == (0, SECRETS.decode())
    assert (await ask(program, path))[1] == exact
    event = (await inbox.service.store.events(call=call.id))[-1]
    assert (event.kind, event.actor, event.detail["via"]) == ("arguments.revealed", "alice", "api")


async def test_a_program_approves_hidden_values_only_after_it_revealed_them(inbox):
    call, program = await inbox.hold(arguments=SECRETS), await inbox.program()
    path, body = f"/calls/{call.id}", {"digest": call.digest}
    status, refused = await ask(program, f"{path}/approve", "POST", json=body)
    assert (status, refused["state"]) == (409, "pending")
    assert "Reveal its exact text first" in refused["error"]
    await ask(program, f"{path}/reveal", "POST")
    status, shown = await ask(program, f"{path}/approve", "POST", json=body)
    assert (status, shown["state"]) == (200, "approved")


async def test_the_answer_of_a_server_shows_no_secrets_before_the_reveal(inbox):
    call = await inbox.run(await inbox.hold(), b'{"content":[],"structuredContent":{"api_key":"k3y"}}')
    program = await inbox.program()
    _, shown = await ask(program, f"/calls/{call.id}")
    assert shown["outcome"]["body"]["structuredContent"] == {"api_key": "[redacted]"}
    _, exact = await ask(program, f"/calls/{call.id}/reveal", "POST")
    assert exact["outcome"]["body"]["structuredContent"] == {"api_key": "k3y"}


async def test_a_list_omits_the_large_parts_of_a_call_and_the_call_itself_shows_them(inbox):
    large = json.dumps({"text": "x" * 70_000}).encode()
    call = await inbox.run(await inbox.hold(arguments=large), b'{"content":[],"isError":true}')
    program = await inbox.program()
    [listed] = (await ask(program, "/calls"))[1]["calls"]
    assert (listed["whole"], listed["arguments"], listed["arguments_text"]) == (False, None, "")
    assert listed["outcome"] == {"is_error": True, "body": None}
    _, shown = await ask(program, f"/calls/{call.id}")
    assert (shown["whole"], shown["arguments_text"]) == (True, large.decode())
    left_out = {"whole", "arguments", "arguments_text", "outcome"}
    assert {name: value for name, value in shown.items() if name not in left_out} == {
        name: value for name, value in listed.items() if name not in left_out
    }


async def test_a_result_with_is_error_is_a_failure_to_programs(inbox):
    call = await inbox.run(await inbox.hold(), b'{"content":[],"isError":true}')
    _, shown = await ask(await inbox.program(), f"/calls/{call.id}")
    assert shown["outcome"] == {"is_error": True, "body": {"content": [], "isError": True}}


async def test_a_finished_call_shows_its_reviews_and_outcome(inbox):
    call = await inbox.run(await inbox.hold())
    _, shown = await ask(await inbox.program(), f"/calls/{call.id}")
    assert shown["outcome"] == {
        "is_error": False,
        "body": {"content": [{"type": "text", "text": "Created."}]},
    }
    assert shown["reviews"] == [
        {"approver": "bob", "answer": "approve", "reason": "", "at": stamp(inbox.now), "via": "slack"}
    ]
    assert shown["decided_at"] == shown["settled_at"] == stamp(inbox.now)


async def test_a_page_of_calls_that_searched_enough_names_the_next_page(inbox, monkeypatch):
    monkeypatch.setattr(memory, "MAX_SEARCHED", 2)
    for tool, agent in (("wanted", "ann"), ("a", "ann"), ("b", "ann"), ("c", "bob")):
        await inbox.hold(tool, agent=agent)
    program = await inbox.program()
    _, first = await ask(program, "/calls?agent=ann&tool=wanted")
    assert first["calls"] == []
    _, second = await ask(program, f"/calls?agent=ann&tool=wanted&before={first['next']}")
    assert ([call["tool"] for call in second["calls"]], second["next"]) == (["wanted"], None)


async def test_calls_are_listed_newest_first_and_in_pages(inbox):
    made = [await inbox.hold(f"tool_{number}", agent=f"agent-{number % 2}") for number in range(5)]
    program = await inbox.program()
    _, first = await ask(program, "/calls?limit=2")
    assert [call["tool"] for call in first["calls"]] == ["tool_4", "tool_3"]
    _, second = await ask(program, f"/calls?limit=4&before={first['next']}")
    assert [call["tool"] for call in second["calls"]] == ["tool_2", "tool_1", "tool_0"]
    assert second["next"] is None
    _, exact = await ask(program, "/calls?limit=5")
    assert (len(exact["calls"]), exact["next"]) == (5, None)
    _, narrow = await ask(program, "/calls?agent=agent-1")
    assert [call["tool"] for call in narrow["calls"]] == ["tool_3", "tool_1"]
    await inbox.deny(made[0])
    _, states = await ask(program, "/calls?state=denied,expired&state=voided")
    assert [call["tool"] for call in states["calls"]] == ["tool_0"]
    _, tools = await ask(program, "/calls?tool=tool_2")
    assert [call["tool"] for call in tools["calls"]] == ["tool_2"]


async def test_a_page_of_large_calls_is_short_and_names_the_next_page(inbox, monkeypatch):
    monkeypatch.setattr(api, "MAX_PAGE_BYTES", 20_000)
    for number in range(3):
        await inbox.hold(f"tool_{number}", arguments=b'"%b"' % (b"x" * 5000))
    program = await inbox.program()
    _, first = await ask(program, "/calls")
    assert [call["tool"] for call in first["calls"]] == ["tool_2", "tool_1"]
    _, second = await ask(program, f"/calls?before={first['next']}")
    assert ([call["tool"] for call in second["calls"]], second["next"]) == (["tool_0"], None)


async def test_a_program_approves_and_denies_what_it_has_seen(inbox):
    one, two = await inbox.hold("one"), await inbox.hold("two")
    program = await inbox.program()
    status, shown = await ask(
        program, f"/calls/{one.id}/approve", "POST", json={"digest": one.digest, "reason": " fine\r\n"}
    )
    assert (status, shown["state"]) == (200, "approved")
    assert [(given["approver"], given["reason"], given["via"]) for given in shown["reviews"]] == [
        ("alice", "fine", "api")
    ]
    body = {"digest": two.digest, "reason": "not today"}
    status, shown = await ask(
        program, f"/calls/{two.id}/deny", "POST", json=body, headers={"User-Agent": "okayed/0.1"}
    )
    assert (status, shown["state"], shown["reviews"][0]["via"]) == (200, "denied", "cli")


async def test_the_same_review_twice_changes_nothing(inbox):
    call = await inbox.hold(needed=2)
    program = await inbox.program()
    for _ in range(2):
        status, shown = await ask(program, f"/calls/{call.id}/approve", "POST", json={"digest": call.digest})
        assert (status, shown["version"], len(shown["reviews"])) == (200, 2, 1)


async def test_a_doubt_is_resolved_with_a_reason(inbox):
    call = await inbox.doubt(await inbox.hold())
    program = await inbox.program()
    assert (await ask(program, f"/calls/{call.id}/resolve", "POST", json={"reason": " "}))[0] == 400
    status, shown = await ask(program, f"/calls/{call.id}/resolve", "POST", json={"reason": "It ran."})
    assert (status, shown["state"], shown["note"]) == (200, "resolved", "alice: It ran.")
    status, shown = await ask(program, f"/calls/{call.id}/resolve", "POST", json={"reason": "It ran."})
    assert (status, shown["state"]) == (409, "resolved")


async def test_a_running_call_is_given_up_with_a_reason(inbox):
    call = await inbox.send(await inbox.hold())
    program = await inbox.program()
    assert (await ask(program, f"/calls/{call.id}/give-up", "POST", json={"reason": " "}))[0] == 400
    status, shown = await ask(program, f"/calls/{call.id}/give-up", "POST", json={"reason": "It hangs."})
    assert (status, shown["state"], shown["note"]) == (200, "in_doubt", "alice gave it up: It hangs.")
    status, shown = await ask(program, f"/calls/{call.id}/give-up", "POST", json={"reason": "It hangs."})
    assert (status, shown["state"]) == (409, "in_doubt")


async def test_a_late_review_gets_the_state_of_the_call(inbox):
    call = await inbox.deny(await inbox.hold())
    program = await inbox.program()
    status, shown = await ask(program, f"/calls/{call.id}/approve", "POST", json={"digest": call.digest})
    assert status == 409
    assert shown == {"error": "This call was already denied.", "state": "denied"}


async def test_a_review_after_the_deadline_but_before_the_sweep_hears_that_the_call_expired(inbox):
    call = await inbox.hold()
    inbox.now = call.expires_at
    program = await inbox.program()
    status, shown = await ask(program, f"/calls/{call.id}/approve", "POST", json={"digest": call.digest})
    assert (status, shown) == (409, {"error": "This call has expired.", "state": "expired"})


async def test_a_review_with_the_digest_of_another_call_is_refused(inbox):
    call = await inbox.hold()
    status, shown = await ask(
        await inbox.program(), f"/calls/{call.id}/approve", "POST", json={"digest": "0" * 64}
    )
    assert (status, shown["state"]) == (409, "pending")
    assert (await inbox.service.get(call.id)).state is State.PENDING


async def test_only_an_approver_of_the_call_decides_and_never_the_owner(inbox):
    others, own = (
        await inbox.hold("one", approvers=frozenset({"bob"})),
        await inbox.hold("two", owner="alice"),
    )
    program = await inbox.program()
    for call, sentence in ((others, "not an approver"), (own, "someone else must approve")):
        for answer in ("approve", "deny"):
            body = {"digest": call.digest, "reason": "because"}
            status, shown = await ask(program, f"/calls/{call.id}/{answer}", "POST", json=body)
            assert status == 403
            assert sentence in shown["error"]
        assert (await inbox.service.get(call.id)).state is State.PENDING


async def test_a_denial_needs_a_reason(inbox):
    call = await inbox.hold()
    status, shown = await ask(
        await inbox.program(), f"/calls/{call.id}/deny", "POST", json={"digest": call.digest}
    )
    assert (status, shown) == (400, {"error": "Give a reason for the denial; the agent reads it."})


@pytest.mark.parametrize("route", ["", "/approve", "/deny", "/give-up", "/resolve", "/reveal"])
async def test_an_unknown_call_is_404(inbox, route):
    method = "POST" if route else "GET"
    body = {"reason": "x"} if route in {"/give-up", "/resolve"} else {"digest": "x", "reason": "x"}
    more = {"json": body} if route else {}
    status, shown = await ask(await inbox.program(), f"/calls/hold_none{route}", method, **more)
    assert (status, shown) == (404, {"error": "This call does not exist."})


@pytest.mark.parametrize(
    ("body", "headers", "status", "sentence"),
    [
        (b'{"digest":"x","grant":{"minutes":15}}', JSON, 400, "Object contains unknown field `grant`."),
        (b'{"digest":1}', JSON, 400, "Expected `str`, got `int` - at `$.digest`."),
        (b'{"digest":', JSON, 400, "The body is not valid JSON."),
        (b"", JSON, 400, "The body is not valid JSON."),
        (b'{"digest":"x","digest":"y"}', JSON, 400, "The body has a duplicate member."),
        (b'{"digest":"x","reason":"a","re\\u0061son":"b"}', JSON, 400, "The body has a duplicate member."),
        (b'{"digest":"\xff"}', JSON, 400, "The body must be UTF-8."),
        (b'{"digest":"x"}', {"Content-Type": "text/plain"}, 415, "Send the body as application/json."),
        (
            b"digest=x",
            {"Content-Type": "application/x-www-form-urlencoded"},
            415,
            "Send the body as application/json.",
        ),
        (
            b'{"digest":"x"}',
            {"Content-Type": "application/json; charset=utf-7"},
            415,
            "Send the body as UTF-8.",
        ),
        (
            b'{"digest":"x","reason":"' + b"x" * 4097 + b'"}',
            JSON,
            400,
            "A reason can have at most 4096 bytes.",
        ),
        (b'{"digest":"x","reason":"' + b"x" * 1_000_000 + b'"}', JSON, 413, "The request is too large."),
    ],
)
async def test_a_malformed_body_is_refused(inbox, body, headers, status, sentence):
    call = await inbox.hold()
    program = await inbox.program()
    assert await ask(program, f"/calls/{call.id}/deny", "POST", data=body, headers=headers) == (
        status,
        {"error": sentence},
    )
    assert (await inbox.service.get(call.id)).state is State.PENDING


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=201", "limit=x", "limit=-1", "limit=٣", "limit=" + "9" * 20, "state=pending,gone"],
)
async def test_an_invalid_query_is_refused(inbox, query):
    status, shown = await ask(await inbox.program(), f"/calls?{query}")
    assert status == 400
    assert shown["error"]


ROUTES = [
    ("GET", "/calls"),
    ("GET", "/calls/hold_1"),
    ("POST", "/calls/hold_1/approve"),
    ("POST", "/calls/hold_1/deny"),
    ("POST", "/calls/hold_1/give-up"),
    ("POST", "/calls/hold_1/resolve"),
    ("POST", "/tools/accept"),
    ("GET", "/audit"),
    ("GET", "/openapi.json"),
    ("GET", "/events"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "credential",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Basic YWxpY2U6YWxpY2U=",
        token("alice"),
        "Bearer alice",
        "Bearer é",
    ],
)
async def test_without_an_approvers_token_no_route_answers(inbox, method, path, credential):
    client = await inbox.stranger(**({"Authorization": credential} if credential is not None else {}))
    status, shown = await ask(client, path, method)
    assert status == 401
    assert shown["error"].startswith("Send an approver token")


async def test_two_tokens_in_one_request_are_refused(inbox):
    client = await inbox.stranger()
    headers = [("Authorization", f"Bearer {token('alice')}"), ("Authorization", f"Bearer {token('bob')}")]
    assert (await ask(client, "/calls", headers=headers))[0] in {400, 401}


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if route[1] != "/events"])
async def test_a_cookie_does_not_open_the_api(inbox, method, path):
    assert (await ask(await inbox.person(), path, method))[0] == 401


async def test_the_audit_trail_is_read_in_order_and_in_pages(inbox):
    call = await inbox.deny(await inbox.hold())
    await inbox.hold("other", agent="helper")
    program = await inbox.program()
    _, whole = await ask(program, "/audit")
    assert [event["kind"] for event in whole["events"]] == ["hold.pending", "hold.denied", "hold.pending"]
    assert [event["seq"] for event in whole["events"]] == [1, 2, 3]
    first = whole["events"][1]
    assert (first["actor"], first["call"], first["at"]) == ("bob", call.id, stamp(inbox.now))
    assert first["detail"]["reason"] == "use the staging account"
    _, page = await ask(program, "/audit?limit=1&after=1")
    assert (page["events"], page["next"]) == ([first], 2)
    _, empty = await ask(program, "/audit?after=3")
    assert empty == {"events": [], "next": 3}
    for query, count in ((f"call={call.id}", 2), ("tool=other", 1), ("agent=helper", 1)):
        assert len((await ask(program, f"/audit?{query}"))[1]["events"]) == count


async def test_the_audit_trail_can_be_read_from_a_given_time(inbox):
    await inbox.hold("early")
    inbox.now += 60
    await inbox.hold("late")
    program = await inbox.program()
    for since in (
        f"{inbox.now}",
        stamp(inbox.now),
        stamp(inbox.now).removesuffix("Z"),
        stamp(inbox.now).replace("Z", "%2B00:00"),
    ):
        _, page = await ask(program, f"/audit?since={since}")
        assert [event["tool"] for event in page["events"]] == ["late"]
    assert (await ask(program, "/audit?since=yesterday"))[0] == 400


async def test_the_openapi_document_lists_every_route_and_no_other(inbox):
    _, document = await ask(await inbox.program(), "/openapi.json")
    described = {
        (method.upper(), path)
        for path, item in document["paths"].items()
        for method in item
        if path.startswith("/api/")
    }
    served = {
        (route.method, route.resource.canonical)
        for route in inbox.app.router.routes()
        if route.resource.canonical.startswith("/api/") and route.method != "HEAD"
    }
    assert described == served
    assert document["openapi"] == "3.1.0"
    assert document["servers"] == [{"url": inbox.here}]


async def test_responses_match_the_openapi_document(inbox):
    import jsonschema_rs

    call = await inbox.run(await inbox.hold())
    program = await inbox.program()
    _, document = await ask(program, "/openapi.json")
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert references <= set(document["components"]["schemas"])
    for path, name in (
        (f"/calls/{call.id}", "Call"),
        ("/calls", "CallPage"),
        ("/audit", "AuditPage"),
        ("/calls/none", "ErrorBody"),
    ):
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        _, shown = await ask(program, path)
        jsonschema_rs.validate(schema, shown)


async def test_a_url_with_a_trailing_slash_makes_the_same_links():
    async with Inbox(url="http://127.0.0.1:1/") as inbox:
        call = await inbox.hold()
        _, shown = await ask(await inbox.program(), f"/calls/{call.id}")
    assert shown["url"] == f"http://127.0.0.1:1/calls/{call.id}"
