import re

import pytest
from yarl import URL

from approvals.web.options import ToolDetails, ToolView
from inbox import Inbox

DETAILS = ToolDetails(
    does='Its server says: "Deletes."',
    why=("It removes what may not come back.", "Hidden \u202e here."),
    advice="Deny it.",
    confidence="Confidence is 0.90.",
    counted="1 parameter, 1 required",
    parameters=(("user_name", "string", True, "Who <i>goes</i>."),),
    applies=("A call waits for approval, by matrix[2].",),
    answers=(
        ("How do I block it?", "Hide it.", 'hide: ["iam/<x>"]'),
        ("What does it do?", "It deletes.", ""),
    ),
)
TOOLS = (
    ToolView(server="iam", tool="get_user", category="Read", risk="Low", severity="low", action="allow"),
    ToolView(
        server="iam",
        tool="delete_user",
        description="Deletes.\nSays \u202e<b>so</b>",
        category="Destructive",
        risk="Critical",
        severity="high",
        evidence=("delete: removes for good",),
        action="require_approval",
        rule="matrix[2]",
        details=lambda: DETAILS,
    ),
    ToolView(server="a/b", tool="x?y", category="Other", risk="Medium", severity="medium", action="deny"),
)


async def answer(client, path):
    async with client.get(path, allow_redirects=False) as got:
        return got.status, await got.text()


@pytest.fixture
async def client():
    async with Inbox(tools=lambda: TOOLS) as inbox:
        yield await inbox.person()


async def test_tools_are_listed_by_server_those_that_need_approval_first(client):
    _, body = await answer(client, "/tools")
    places = [body.index(name) for name in ("a/b", "delete_user", "get_user")]
    assert places == sorted(places)
    for words in ("Needs approval", "Allowed", "Denied", "matrix[2]"):
        assert words in body


async def test_a_tools_page_explains_its_classification(client):
    status, body = await answer(client, "/tools/iam/delete_user")
    assert status == 200
    assert "delete: removes for good" in body
    assert "&lt;b&gt;so&lt;/b&gt;" in body
    assert "\u202e" not in body


async def test_a_tools_page_shows_every_detail_with_hidden_characters_escaped(client):
    _, body = await answer(client, "/tools/iam/delete_user")
    for sentence in (
        *DETAILS.why[:1],
        DETAILS.advice,
        DETAILS.confidence,
        DETAILS.counted,
        *DETAILS.applies,
        "Who &lt;i&gt;goes",
    ):
        assert sentence in body
    assert "Hidden \\u{202E} here." in body
    assert "hide: [&#34;iam/&lt;x&gt;&#34;]</pre>" in body
    assert body.count("Config: ") == 1  # an answer without config has no box


async def test_a_tools_page_links_its_latest_held_calls():
    async with Inbox(tools=lambda: TOOLS) as inbox:
        client = await inbox.person()
        denied = await inbox.deny(await inbox.hold("delete_user"))
        latest = [await inbox.hold("delete_user", arguments=b'{"n":%d}' % number) for number in range(10)]
        other = await inbox.hold("delete_user", server="other")
        _, body = await answer(client, "/tools/iam/delete_user")
        recent = body.partition('id="recent"')[2].partition("</section>")[0]
        assert re.findall(r'href="/calls/(\w+)"', recent) == [call.id for call in reversed(latest)]
        assert other.id not in recent
        await inbox.approve(latest[0])
        _, body = await answer(client, "/tools/iam/delete_user")
        assert "Approved" in body.partition('id="recent"')[2].partition("</section>")[0]
        assert denied.id in (await answer(client, "/history?tool=delete_user"))[1]
        _, none = await answer(client, "/tools/iam/get_user")
        assert "No held calls yet." in none


def listed(body):
    return re.findall(r'<span class="tool">([^<]+)</span></a></td>', body)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("server=iam", ["delete_user", "get_user"]),
        ("category=Other", ["x?y"]),
        ("risk=Low", ["get_user"]),
        ("action=require_approval", ["delete_user"]),
        ("server=iam&category=Read&risk=Low&action=allow", ["get_user"]),
        ("server=&category=", ["x?y", "delete_user", "get_user"]),
        ("server=iam&category=Other", []),
        ("action=%3Cscript%3E", []),
    ],
)
async def test_the_list_is_filtered_by_server_category_risk_and_action(client, query, names):
    status, body = await answer(client, f"/tools?{query}")
    assert (status, listed(body)) == (200, names)
    assert ("No matching tools." in body) is (not names)
    assert "<script>" not in body


async def test_categories_are_counted_within_the_other_filters(client):
    _, body = await answer(client, "/tools?server=iam&category=Read")
    kinds = re.search(r'<nav class="kinds".*?</nav>', body, re.DOTALL)[0]
    assert re.findall(r"<b>(\d+)</b>", kinds) == ["2", "1", "0", "0", "1", "0", "0"]
    assert 'href="/tools?server=iam"' in kinds
    assert 'href="/tools?server=iam&amp;category=Destructive"' in kinds
    assert '<input type="hidden" name="category" value="Read">' in body  # the form keeps the category
    assert '<option value="iam" selected>' in body


async def test_unclassified_tools_are_marked(client):
    for path in ("/tools?category=Other", "/tools/a%2Fb/x%3Fy"):
        async with client.get(URL(path, encoded=True)) as got:
            assert (
                '<span class="badge warn" title="Could not be classified">?</span> Other' in await got.text()
            )


async def test_the_page_of_a_tool_with_a_strange_name_updates_itself(client):
    async with client.get(URL("/tools/a%2Fb/x%3Fy", encoded=True)) as got:
        assert 'data-self="/tools/a%2Fb/x%3Fy"' in await got.text()


async def test_a_tool_with_a_strange_name_has_a_page(client):
    _, body = await answer(client, "/tools")
    assert 'href="/tools/a%2Fb/x%3Fy"' in body
    async with client.get(URL("/tools/a%2Fb/x%3Fy", encoded=True)) as got:
        assert "x?y" in await got.text()


async def test_an_unknown_tool_is_404(client):
    assert (await answer(client, "/tools/iam/none"))[0] == 404


async def test_an_empty_tool_list_says_so():
    async with Inbox(tools=tuple) as inbox:
        assert "No server has listed its tools yet." in (await answer(await inbox.person(), "/tools"))[1]


async def test_without_a_tool_source_there_is_no_tools_page(inbox):
    assert (await answer(await inbox.person(), "/tools"))[0] == 404


CHANGED = ToolView(
    server="a/b", tool="x?y", category="Other", risk="Medium", severity="medium", action="deny", definition="now", changed=True,
    details=lambda: ToolDetails(changes="-was <b>\n+is \u202e"),
)  # fmt: skip


async def accepting(body, client, **fields):
    token = re.search(r'name="csrf_token" value="([^"]+)"', body)[1]
    path = "/tools/a%2Fb/x%3Fy/accept"
    form = {"csrf_token": token} | fields
    async with client.post(URL.build(path=path, encoded=True), data=form, allow_redirects=False) as got:
        return got.status, got.headers.get("Location"), await got.text()


async def test_a_changed_definition_is_shown_and_accepted_only_as_shown():
    said = []
    async with Inbox(
        tools=lambda: [*TOOLS[:2], CHANGED], accept=lambda *who: said.append(who) or ["x?y"]
    ) as inbox:
        client = await inbox.person("bob")
        _, body = await answer(client, "/tools")
        assert body.count(">Changed<") == 1
        _, body = await answer(client, URL.build(path="/tools/a%2Fb/x%3Fy", encoded=True))
        assert "-was &lt;b&gt;\n+is " in body
        assert "\u202e" not in body
        assert (await accepting(body, client, definition="before"))[:2] == (409, None)
        assert (await accepting(body, client))[:2] == (409, None)
        assert (await accepting(body, client, definition="now", csrf_token="x"))[:2] == (403, None)
        assert said == []
        status, onward, _ = await accepting(body, client, definition="now")
        assert (status, onward) == (303, "/tools/a%2Fb/x%3Fy")
        assert said == [("a/b", "x?y", "bob")]


async def test_an_unchanged_tool_has_no_accept_button(client):
    _, body = await answer(client, "/tools/iam/delete_user")
    assert "/accept" not in body
