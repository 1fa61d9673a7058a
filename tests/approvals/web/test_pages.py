"""The pages as the server renders them, and the forms that decide a call."""

import html
import json
import re
from html.parser import HTMLParser
from urllib.parse import quote

import pytest

from approvals.model import Decision, State
from approvals.presence import MIN_ATTENDED
from approvals.store.memory import store as memory
from approvals.web import pages
from inbox import Inbox


async def answer(client, path, method="GET", **more):
    async with client.request(method, path, allow_redirects=False, **more) as got:
        return got.status, await got.text(), got.headers


async def form(client, call, action="approve"):
    """Return the hidden fields of a form on the call's page."""
    _, body, _ = await answer(client, f"/calls/{call.id}")
    text = re.search(rf'<form method="post" action="/calls/{call.id}/{action}".*?</form>', body, re.DOTALL)[0]
    return dict(re.findall(r'type="hidden" name="(\w+)" value="(\w*)"', text))


async def decide(client, call, action="approve", **fields):
    data = await form(client, call, action) | fields
    return await answer(client, f"/calls/{call.id}/{action}", "POST", data=data)


def text(body):
    """Return the visible text of a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


async def test_the_front_page_lists_waiting_calls_by_deadline(inbox):
    await inbox.hold("late", expires_at=inbox.now + 900)
    await inbox.hold("soon", expires_at=inbox.now + 60)
    doubtful = await inbox.doubt(await inbox.hold("doubtful"))
    await inbox.deny(await inbox.hold("decided"))
    _, body, _ = await answer(await inbox.person(), "/")
    assert re.findall(r'<span class="tool">(\w+)</span>', body) == ["soon", "late", "doubtful"]
    assert f'href="/calls/{doubtful.id}"' in body
    assert "<title>(3) Okayed</title>" in body
    assert "/static/icon-waiting.svg" in body


async def test_an_empty_list_shows_the_last_decision(inbox):
    client = await inbox.person()
    assert "No calls waiting." in (await answer(client, "/"))[1]
    await inbox.deny(await inbox.hold())
    inbox.now += 720
    _, body, _ = await answer(client, "/")
    assert "Last call: put_user_policy on iam, denied (bob, 12 min ago)." in text(body)
    assert "<title>Okayed</title>" in body
    await inbox.service.cancel((await inbox.hold("two")).id, "the agent left", actor="ci-bot")
    assert "Last call: two on iam, cancelled (okayed, just now)." in text((await answer(client, "/"))[1])


async def test_a_row_shows_the_quorum_and_an_unattended_call(inbox):
    call = await inbox.hold(needed=2)
    inbox.now += MIN_ATTENDED
    await inbox.approve(call)
    assert "1 of 2 approvals agent not waiting" in text((await answer(await inbox.person(), "/"))[1])


async def test_the_list_marks_calls_that_others_must_decide(inbox):
    await inbox.hold("mine_to_answer")
    await inbox.hold("of_my_agent", owner="alice")
    await inbox.hold("of_others", approvers=frozenset({"bob"}))
    await inbox.approve(await inbox.hold("of_two", needed=2), "alice")
    await inbox.doubt(await inbox.hold("in_doubt_of_others", approvers=frozenset({"bob"})))
    doubtful = await inbox.hold("in_doubt", needed=2)
    await inbox.approve(doubtful, "alice")
    await inbox.doubt(doubtful)
    _, body, _ = await answer(await inbox.person(), "/")
    rows = [text(row) for row in re.findall(r"<li .*?</li>", body, re.DOTALL)]
    marks = ("your own agent", "for other approvers", "approved by you")
    assert {row.split()[0]: [mark for mark in marks if mark in row] for row in rows} == {
        "mine_to_answer": [],
        "of_my_agent": ["your own agent"],
        "of_others": ["for other approvers"],
        "of_two": ["approved by you"],
        "in_doubt_of_others": ["for other approvers"],
        "in_doubt": [],
    }


async def test_a_calls_page_shows_everything_about_it(inbox):
    call = await inbox.hold(arguments=b'{"user_name":"ana","n":1.0}', needed=2)
    await inbox.approve(call, reason="fine with me")
    _, body, _ = await answer(await inbox.person(), f"/calls/{call.id}")
    shown = text(body)
    for fact in (
        "ci-bot for maria wants to run",
        "put_user_policy on iam",
        "Critical severity Write risk class High",
        "Changes data. A mistake can do serious harm that may be irreversible.",
        f"27 bytes, SHA-256 {call.digest[:8]}",
        '"user_name" : "ana" , "n" : 1.0',
        "Rule tools.put_user_policy IAM changes need a second pair of eyes",
        "policy: says who may do what",
        call.id,
        "Reviews 1 of 2 approvals",
        "bob approved via slack fine with me",
    ):
        assert fact in shown, fact
    assert f'value="{call.digest}"' in body


async def test_a_calls_page_shows_the_servers_address(inbox):
    call = await inbox.hold(address="https://mcp.example.com/mcp (account prod\u202e)")
    _, body, _ = await answer(await inbox.person(), f"/calls/{call.id}")
    assert "at https://mcp.example.com/mcp (account prod\\u{202E})" in text(body)
    assert (
        " at "
        not in text((await answer(await inbox.person(), f"/calls/{(await inbox.hold('x')).id}"))[1])[:400]
    )


async def test_a_click_on_approve_decides_and_returns_to_the_call(inbox):
    call = await inbox.hold()
    status, _, headers = await decide(await inbox.person(), call, reason="checked")
    assert (status, headers["Location"]) == (303, f"/calls/{call.id}")
    now = await inbox.service.get(call.id)
    assert now.state is State.APPROVED
    assert [(given.approver, given.answer, given.reason, given.via) for given in now.reviews] == [
        ("alice", Decision.APPROVE, "checked", "inbox")
    ]


async def test_a_click_on_deny_needs_a_reason(inbox):
    call = await inbox.hold()
    client = await inbox.person()
    status, body, _ = await decide(client, call, "deny", reason="  ")
    assert status == 400
    assert "Give a reason for the denial" in body
    assert (await inbox.service.get(call.id)).state is State.PENDING
    assert (await decide(client, call, "deny", reason="use staging\r\nplease"))[0] == 303
    now = await inbox.service.get(call.id)
    assert (now.state, now.denial.reason) == (State.DENIED, "use staging\nplease")


async def test_a_get_request_decides_nothing(inbox):
    call = await inbox.hold()
    client = await inbox.person()
    for action in ("approve", "deny", "give-up", "resolve", "reveal"):
        assert (await answer(client, f"/calls/{call.id}/{action}?reason=x&digest={call.digest}"))[0] == 405
    await answer(client, f"/calls/{call.id}", "HEAD")
    await answer(client, f"/calls/{call.id}")
    assert await inbox.service.get(call.id) == call


async def test_a_form_without_the_sessions_token_decides_nothing(inbox):
    call = await inbox.hold()
    mine, theirs = await inbox.person(), await inbox.person("bob")
    foreign = (await form(theirs, call))["csrf_token"]
    for token in ("", "0" * 64, foreign):
        data = {"digest": call.digest, "csrf_token": token}
        assert (await answer(mine, f"/calls/{call.id}/approve", "POST", data=data))[0] == 403
    assert (await inbox.service.get(call.id)).state is State.PENDING


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        (b"{}", "application/json", 415),
        (b"csrf_token=x", "text/plain", 415),
        (b"csrf_token=x", "multipart/form-data; boundary=x", 415),
        (b"csrf_token=x", "application/x-www-form-urlencoded; charset=utf-7", 415),
        (b"csrf_token=x&csrf_token=y", "application/x-www-form-urlencoded", 400),
        (b"csrf_token", "application/x-www-form-urlencoded", 400),
        (b"csrf_token=%ff", "application/x-www-form-urlencoded", 400),
        (b"\xff", "application/x-www-form-urlencoded", 400),
        (b"&".join([b"a%d=1" % number for number in range(30)]), "application/x-www-form-urlencoded", 400),
        (b"", "application/x-www-form-urlencoded", 403),
    ],
)
async def test_a_malformed_form_decides_nothing(inbox, data, content_type, status):
    call = await inbox.hold()
    client = await inbox.person()
    headers = {"Content-Type": content_type}
    got, _, _ = await answer(client, f"/calls/{call.id}/approve", "POST", data=data, headers=headers)
    assert got == status
    assert (await inbox.service.get(call.id)).state is State.PENDING


async def test_the_digest_shown_must_match_the_held_call(inbox):
    call = await inbox.hold()
    status, body, _ = await decide(await inbox.person(), call, digest="0" * 64)
    assert status == 409
    assert "The held call differs from the one that you saw" in body
    assert (await decide(await inbox.person(), call, digest=""))[0] == 409
    assert (await inbox.service.get(call.id)).state is State.PENDING


async def test_a_late_click_shows_the_state_of_the_call(inbox):
    call = await inbox.hold()
    client = await inbox.person()
    fields = await form(client, call)
    await inbox.deny(call)
    status, body, _ = await answer(client, f"/calls/{call.id}/approve", "POST", data=fields)
    assert status == 409
    assert "This call was already denied." in body
    assert "bob denied via slack use the staging account" in text(body)
    assert f'data-self="/calls/{call.id}"' in body


@pytest.mark.parametrize(
    "changes", [{"approvers": frozenset({"bob"})}, {"owner": "alice"}, {"approvers": frozenset()}]
)
async def test_a_person_who_may_not_decide_sees_no_buttons(inbox, changes):
    call = await inbox.hold(**changes)
    client = await inbox.person()
    _, body, _ = await answer(client, f"/calls/{call.id}")
    assert "put_user_policy" in body
    assert "/approve" not in body
    assert "/deny" not in body
    data = {
        "csrf_token": re.search(r'name="csrf_token" value="(\w+)"', body)[1],
        "digest": call.digest,
        "reason": "x",
    }
    for action in ("approve", "deny", "reveal"):
        assert (await answer(client, f"/calls/{call.id}/{action}", "POST", data=data))[0] == 403
    assert (await inbox.service.get(call.id)).state is State.PENDING


async def test_a_person_who_approved_sees_that_another_approval_is_needed(inbox):
    call = await inbox.hold(needed=2)
    client = await inbox.person()
    await decide(client, call)
    _, body, _ = await answer(client, f"/calls/{call.id}")
    assert "You approved this call. It needs another approval." in body
    assert f'action="/calls/{call.id}/approve"' not in body
    assert f'action="/calls/{call.id}/deny"' in body


async def test_a_reason_has_a_limit(inbox):
    call = await inbox.hold()
    status, body, _ = await decide(await inbox.person(), call, "deny", reason="x" * 4097)
    assert status == 400
    assert "A reason can have at most 4096 bytes." in body


async def test_line_ends_in_a_reason_reach_no_header(inbox):
    call = await inbox.hold()
    status, _, headers = await decide(
        await inbox.person(), call, "deny", reason="no\r\nSet-Cookie: a=b\r\n\r\n<h1>"
    )
    assert status == 303
    assert "Set-Cookie" not in headers


async def test_a_failed_call_says_so_and_shows_the_servers_response_open(inbox):
    call = await inbox.run(
        await inbox.hold(), b'{"content":[{"type":"text","text":"No such user."}],"isError":true}'
    )
    client = await inbox.person()
    _, page, _ = await answer(client, f"/calls/{call.id}")
    assert "Failed at the server" in text(page)
    assert "Done" not in text(page)
    assert "<details open>" in page
    _, history, _ = await answer(client, "/history")
    assert 'tone-bad">Failed at the server' in history
    events = await inbox.service.store.events(call=call.id)
    assert events[-1].detail["failed"] is True


async def test_a_finished_call_shows_its_reviews_and_its_outcome(inbox):
    call = await inbox.run(await inbox.hold())
    _, body, _ = await answer(await inbox.person(), f"/calls/{call.id}")
    shown = text(body)
    assert "Ran once; the server answered" in shown
    assert '"Created."' in shown
    assert "bob approved via slack" in shown
    assert "Done" in shown
    assert "<form method" not in body.partition('id="decide"')[2].partition("</section>")[0]


async def test_a_call_in_doubt_asks_what_happened(inbox):
    call = await inbox.doubt(await inbox.hold())
    client = await inbox.person()
    _, body, _ = await answer(client, f"/calls/{call.id}")
    assert "the call may or may not have run" in body
    assert (await decide(client, call, "resolve", reason=""))[0] == 400
    assert (await decide(client, call, "resolve", reason="It ran."))[0] == 303
    now = await inbox.service.get(call.id)
    assert (now.state, now.note) == (State.RESOLVED, "alice: It ran.")
    assert "alice: It ran." in (await answer(client, f"/calls/{call.id}"))[1]


async def test_its_reviewers_can_give_up_a_running_call_with_a_reason(inbox):
    call = await inbox.send(await inbox.hold(approvers=frozenset({"bob"})))
    _, body, _ = await answer(await inbox.person("alice"), f"/calls/{call.id}")
    assert "/give-up" not in body
    client = await inbox.person("bob")
    _, body, _ = await answer(client, f"/calls/{call.id}")
    assert 'id="give-up-sure" required' in body
    assert (await decide(client, call, "give-up", reason=""))[0] == 400
    assert (await decide(client, call, "give-up", reason="It hangs."))[0] == 303
    now = await inbox.service.get(call.id)
    assert (now.state, now.note) == (State.IN_DOUBT, "bob gave it up: It hangs.")


async def test_only_an_approver_can_resolve_a_call_in_doubt(inbox):
    call = await inbox.doubt(await inbox.hold(approvers=frozenset({"bob"})))
    _, body, _ = await answer(await inbox.person(), f"/calls/{call.id}")
    assert "You are not an approver for this call." in body
    assert "/resolve" not in body


async def test_an_approved_call_says_that_it_has_not_run(inbox):
    call = await inbox.approve(await inbox.hold())
    _, body, _ = await answer(await inbox.person(), f"/calls/{call.id}")
    assert "It has not run yet." in body


async def test_the_exact_text_says_whether_it_was_sent(inbox):
    client = await inbox.person()
    for call, said in (
        (await inbox.hold("one"), "would be sent"),
        (await inbox.run(await inbox.hold("two")), "was sent"),
        (await inbox.deny(await inbox.hold("three")), "would have been sent"),
        (await inbox.doubt(await inbox.hold("four")), "may have been sent"),
    ):
        assert f"Exact text that {said}<" in (await answer(client, f"/calls/{call.id}"))[1]


async def test_a_calls_page_says_that_the_agent_is_no_longer_waiting(inbox):
    call, client = await inbox.hold(), await inbox.person()
    inbox.now += MIN_ATTENDED
    with inbox.service.attend(call.id):
        assert "The agent is no longer waiting." not in (await answer(client, f"/calls/{call.id}"))[1]
    assert "The agent is no longer waiting." in (await answer(client, f"/calls/{call.id}"))[1]


async def test_a_repeated_call_links_to_the_earlier_one(inbox):
    first = await inbox.run(await inbox.hold())
    await inbox.service.record_collected(first.id)
    second = await inbox.hold()
    _, body, _ = await answer(await inbox.person(), f"/calls/{second.id}")
    assert f'<a href="/calls/{first.id}">' in body


async def test_an_unknown_call_is_404(inbox):
    client = await inbox.person()
    status, body, _ = await answer(client, "/calls/hold_<b>none")
    assert (status, "This call does not exist." in body, "<b>" in body) == (404, True, False)


HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</pre></script><script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "{{7*7}}{% import os %}",
    "javascript:alert(1)",
    "' onfocus='alert(1)",
    "${7*7}",
)


class Skeleton(HTMLParser):
    """The elements of a page and their attribute names, without the elements that only colour."""

    def __init__(self, body):
        super().__init__()
        self.bones = []
        self.feed(body)

    def handle_starttag(self, tag, attributes):
        if tag not in {"span", "mark"}:
            self.bones.append((tag, *(name for name, _ in attributes)))


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_hostile_text_changes_nothing_but_text(hostile):
    skeletons = []
    for said in ("harmless", hostile):
        async with Inbox() as inbox:
            arguments = json.dumps({said: said}).encode()
            named = {"agent": said, "owner": said, "server": said, "rule": said, "reason": said}
            waiting = await inbox.hold(said, arguments=arguments, **named)
            denied = await inbox.deny(
                await inbox.hold(f"{said} 2", arguments=arguments, **named), reason=said
            )
            client = await inbox.person()
            paths = (
                "/",
                f"/calls/{waiting.id}",
                f"/calls/{denied.id}",
                "/history",
                f"/history?q={quote(said)}",
            )
            bodies = [(await answer(client, path))[1] for path in paths]
            assert all(said in html.unescape(re.sub("</?(span|mark)[^>]*>", "", body)) for body in bodies)
            skeletons.append([Skeleton(body).bones for body in bodies])
    assert skeletons[0] == skeletons[1]


@pytest.mark.parametrize(
    "character", ["\u202e", "\u2066", "\u200b", "\ufeff", "\U000e0041", "\ufe0f", "\x1b", "\x00", "\u3164"]
)
async def test_a_hidden_character_is_seen_and_flagged(inbox, character):
    call = await inbox.hold(
        f"to{character}ol", arguments=json.dumps({"a": f"x{character}y"}, ensure_ascii=False).encode()
    )
    client = await inbox.person()
    for path in (f"/calls/{call.id}", "/", "/history"):
        _, body, _ = await answer(client, path)
        assert character not in body
    _, body, _ = await answer(client, f"/calls/{call.id}")
    if character.isprintable() or ord(character) > 0x1F:  # JSON itself escapes the others
        assert "hidden character" in body
        assert "<mark" in body


async def test_hidden_characters_are_marked_in_all_text_of_agents_and_servers(inbox):
    call = await inbox.hold(extra_params='{"a":"x\u202ey"}'.encode(), changes="- old\n+ new \u202e 1")
    _, body, _ = await answer(await inbox.person(), f"/calls/{call.id}")
    for label in ("Also sent", "Tool changes"):
        shown = re.search(rf'aria-label="{label}">(.*?)</pre>', body, re.DOTALL)[1]
        assert '<mark title="Hidden character">\\u{202E}</mark>' in shown
    assert text(shown) == "- old + new \\u{202E} 1"


async def test_extra_params_are_shown_with_the_arguments(inbox):
    beside = {"_meta": {"acme/<b>": "x\u200by", "password": "hunter2hunter2"}}
    call = await inbox.hold(extra_params=json.dumps(beside, ensure_ascii=False).encode())
    client = await inbox.person()
    _, body, _ = await answer(client, f"/calls/{call.id}")
    assert "Also sent" in body
    assert "acme/&lt;b&gt;" in body
    assert "hunter2" not in body
    assert "\u200b" not in body
    assert "<b>1 hidden character</b>" in body
    assert "1 value hidden" in body
    data = await form(client, call, "reveal")
    await answer(client, f"/calls/{call.id}/reveal", "POST", data=data)
    _, body, _ = await answer(client, f"/calls/{call.id}")
    assert "hunter2hunter2" in body
    plain = await inbox.hold("other")
    _, body, _ = await answer(client, f"/calls/{plain.id}")
    assert "Also sent" not in body


async def test_every_argument_is_shown_however_many_and_however_long(inbox):
    many = {f"key_{number}": "x" * 40 for number in range(300)} | {
        "long": "y" * 200_000 + "the end",
        "last": "rm -rf /",
    }
    call = await inbox.hold(arguments=json.dumps(many).encode())
    _, body, _ = await answer(await inbox.person(), f"/calls/{call.id}")
    for shown in ("key_299", "the end", "rm -rf /"):
        assert shown in body


async def test_secrets_are_counted_and_shown_only_after_a_recorded_reveal(inbox):
    secret = "AKIAIOSFODNN7EXAMPLE"
    call = await inbox.hold(
        arguments=json.dumps({"password": "hunter2hunter2", "aws_secret_access_key": secret}).encode()
    )
    client = await inbox.person()
    for path in (f"/calls/{call.id}", "/"):
        _, body, _ = await answer(client, path)
        assert "hunter2" not in body
        assert secret not in body
    _, body, _ = await answer(client, f"/calls/{call.id}")
    assert "2 values hidden" in body
    data = await form(client, call, "reveal")
    assert (await answer(client, f"/calls/{call.id}/reveal", "POST", data=data | {"csrf_token": "x"}))[
        0
    ] == 403
    status, _, headers = await answer(client, f"/calls/{call.id}/reveal", "POST", data=data)
    assert (status, headers["Location"]) == (303, f"/calls/{call.id}#exact")
    assert "hunter2hunter2" in (await answer(client, f"/calls/{call.id}"))[1]
    assert "hunter2hunter2" not in (await answer(await inbox.person("bob"), f"/calls/{call.id}"))[1]
    event = (await inbox.store.events(call=call.id))[-1]
    assert (event.kind, event.actor, event.tool) == ("arguments.revealed", "alice", "put_user_policy")
    assert "hunter2" not in repr(event)


async def test_a_call_with_secrets_is_approved_only_by_people_who_viewed_them(inbox):
    call = await inbox.hold(arguments=b'{"password":"hunter2hunter2"}', needed=2)
    client = await inbox.person()
    _, body, _ = await answer(client, f"/calls/{call.id}")
    assert "You can approve this call after viewing the hidden values." in body
    assert "/approve" not in body
    assert f'action="/calls/{call.id}/deny"' in body
    data = await form(client, call, "reveal")
    await answer(client, f"/calls/{call.id}/reveal", "POST", data=data)
    assert "/approve" not in (await answer(await inbox.person("bob"), f"/calls/{call.id}"))[1]
    assert (await decide(client, call))[0] == 303
    assert "It needs another approval." in (await answer(client, f"/calls/{call.id}"))[1]


async def test_an_empty_history_says_so(inbox):
    client = await inbox.person()
    assert "No calls yet." in (await answer(client, "/history"))[1]
    assert "No matching calls." in (await answer(client, "/history?state=denied"))[1]


async def test_the_history_filters_and_pages(inbox):
    for number in range(55):
        await inbox.hold(f"tool_{number}", agent="even" if number % 2 == 0 else "odd")
    await inbox.deny(await inbox.hold("dropped"))
    client = await inbox.person()

    async def tools(path):
        _, body, _ = await answer(client, path)
        older = re.search(r'<a href="([^"]+)" rel="next"', body)
        return re.findall(r'data-row><span class="tool">(\w+)</span>', body), older and html.unescape(
            older[1]
        )

    first, older = await tools("/history")
    assert (first[0], len(first)) == ("dropped", 50)
    second, end = await tools(older)
    assert (second[0], second[-1], end) == ("tool_5", "tool_0", None)
    assert await tools("/history?state=denied") == (["dropped"], None)
    assert (await tools("/history?agent=odd&tool=tool_7"))[0] == ["tool_7"]
    assert (await tools("/history?q=dropp"))[0] == ["dropped"]
    assert "No matching calls." in (await answer(client, "/history?q=nothing"))[1]
    assert (await answer(client, "/history?state=gone"))[0] == 400


async def test_a_short_page_of_the_history_says_how_many_calls_were_searched(inbox, monkeypatch):
    for module in (memory, pages):
        monkeypatch.setattr(module, "MAX_SEARCHED", 3)
    for tool in ("wanted_1", "a", "b", "c", "d", "e", "wanted_2", "f"):
        await inbox.hold(tool)
    client = await inbox.person()
    path, shown = "/history?q=wanted", []
    while path:
        _, body, _ = await answer(client, path)
        link = re.search(r'<a href="([^"]+)" rel="next"', body)
        shown.append(re.findall(r'data-row><span class="tool">(\w+)</span>', body))
        assert ("Searched 3 calls." in body) == bool(link and shown[-1])
        assert ("No matching calls among the 3 searched." in body) == bool(link and not shown[-1])
        path = link and html.unescape(link[1])
    assert shown == [["wanted_2"], [], ["wanted_1"]]


async def test_a_filter_is_kept_on_the_next_page(inbox):
    for number in range(51):
        await inbox.hold(f"tool_{number}")
    _, body, _ = await answer(await inbox.person(), "/history?state=pending&q=tool")
    older = html.unescape(re.search(r'<a href="([^"]+)" rel="next"', body)[1])
    assert older.startswith("/history?state=pending&q=tool&before=hold_")


async def test_the_navigation_shows_tools_only_with_a_tool_source(inbox):
    assert 'href="/tools"' not in (await answer(await inbox.person(), "/"))[1]
    async with Inbox(tools=tuple) as other:
        assert 'href="/tools"' in (await answer(await other.person(), "/"))[1]


async def test_lists_are_made_without_reading_the_calls(monkeypatch):
    async with Inbox() as inbox:
        for n in range(3):
            await inbox.hold(arguments=b'{"n": %d, "text": "%s"}' % (n, b"x" * 9_000))

        async def read(*_, **__):
            raise AssertionError("a call was read whole")

        monkeypatch.setattr(inbox.store, "select", read)
        monkeypatch.setattr(inbox.store, "get", read)
        alice = await inbox.person()
        for path in ("/", "/history"):
            async with alice.get(path) as answer:
                assert answer.status == 200
                assert (await answer.text()).count("data-row") >= 3
