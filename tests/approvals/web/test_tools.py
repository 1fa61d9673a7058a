import pytest

from approvals.web import ToolView
from inbox import Inbox

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


async def test_tools_are_listed_by_server_with_those_that_ask_first(client):
    _, body = await answer(client, "/tools")
    places = [body.index(name) for name in ("a/b", "delete_user", "get_user")]
    assert places == sorted(places)
    for words in ("Asks a person", "Allowed", "Denied", "matrix[2]"):
        assert words in body


async def test_a_tools_page_says_why_it_was_taken_for_what_it_is(client):
    status, body = await answer(client, "/tools/iam/delete_user")
    assert status == 200
    assert "delete: removes for good" in body
    assert "&lt;b&gt;so&lt;/b&gt;" in body
    assert "\u202e" not in body


async def test_a_tool_with_a_strange_name_has_a_page(client):
    _, body = await answer(client, "/tools")
    assert 'href="/tools/a%2Fb/x%3Fy"' in body
    from yarl import URL

    async with client.get(URL("/tools/a%2Fb/x%3Fy", encoded=True)) as got:
        assert "x?y" in await got.text()


async def test_an_unknown_tool_is_404(client):
    assert (await answer(client, "/tools/iam/none"))[0] == 404


async def test_no_tools_yet_is_said():
    async with Inbox(tools=tuple) as inbox:
        assert "No server has told its tools yet." in (await answer(await inbox.person(), "/tools"))[1]


async def test_there_is_no_page_of_tools_where_nobody_knows_them(inbox):
    assert (await answer(await inbox.person(), "/tools"))[0] == 404
