"""The inbox in Chromium: listing, reading, approving and denying; with shortcuts, on a phone, without JavaScript."""

import json

import pytest
import pytest_asyncio

from approvals.model import State
from approvals.presence import MIN_ATTENDED
from approvals.web.options import ToolDetails, ToolView
from browser import FOUND, MISSING, barriers, chromium, window
from inbox import Inbox, sha256, token

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(FOUND is None, reason=MISSING),
]

HOSTILE = "</pre><img src=x onerror=alert(1)><script>alert(2)</script>{{7*7}}\u202e"
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser():
    async with chromium() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def inbox():
    async with Inbox() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser, inbox):
    async with window(browser, inbox.here, viewport=DESK) as opened:
        await sign_in(opened)
        yield opened


async def sign_in(page):
    await page.goto("/login")
    await page.get_by_label("Your approver token").fill(token("alice"))
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("heading", name="Waiting calls").wait_for()


async def live(page):
    """Wait until the page receives live updates."""
    await page.locator("#live.on").wait_for()


async def test_a_person_reads_a_call_and_approves_it(page, inbox):
    call = await inbox.hold(arguments=b'{"user_name":"ana"}')
    await page.goto("/")
    await page.get_by_role("link", name="put_user_policy").click()
    assert await page.get_by_role("region", name="Arguments").inner_text() == '{\n  "user_name": "ana"\n}'
    await page.get_by_label("Note optional").fill("checked")
    await page.get_by_role("button", name="Approve once").click()
    await page.get_by_role("heading", name="Approved").wait_for()
    now = await inbox.service.get(call.id)
    assert (now.state, now.reviews[0].reason, now.reviews[0].via) == (State.APPROVED, "checked", "inbox")


async def test_a_denial_without_a_reason_does_not_leave_the_page(page, inbox):
    call = await inbox.hold()
    await page.goto(f"/calls/{call.id}")
    await page.get_by_role("button", name="Deny").click()
    assert await page.locator("#deny-reason:invalid").count() == 1
    await page.get_by_label("Reason sent to the agent").fill("use the staging account")
    await page.get_by_role("button", name="Deny").click()
    await page.get_by_role("heading", name="Denied").wait_for()
    assert (await inbox.service.get(call.id)).denial.reason == "use the staging account"


async def test_a_new_call_appears_and_the_focus_stays(page, inbox):
    first = await inbox.hold("first")
    await page.goto("/")
    await live(page)
    await page.locator(f"#open-{first.id}").focus()
    await inbox.hold("second", expires_at=inbox.now + 60)
    await page.get_by_role("link", name="second").wait_for()
    assert await page.title() == "(2) Okayed"
    assert await page.evaluate("document.activeElement.id") == f"open-{first.id}"
    assert await page.locator("#icon").get_attribute("href") == "/static/icon-waiting.svg"
    assert await page.locator("#live").inner_text() == "Live, 2 waiting"
    await inbox.deny(first)
    await page.locator(f"#open-{first.id}").wait_for(state="detached")


async def test_ten_tabs_of_one_browser_are_all_live_over_one_stream(page, inbox):
    await inbox.hold("first")
    tabs = [page] + [await page.context.new_page() for _ in range(9)]
    for tab in tabs:
        await tab.goto("/")
        await live(tab)
    await inbox.hold("second")
    for tab in tabs:
        await tab.get_by_role("link", name="second").wait_for()
    await page.close()
    await live(tabs[1])
    await inbox.hold("third")
    for tab in tabs[1:]:
        await tab.get_by_role("link", name="third").wait_for()


async def test_a_review_made_elsewhere_appears_and_typed_text_stays(page, inbox):
    call = await inbox.hold(needed=2)
    await page.goto(f"/calls/{call.id}")
    await live(page)
    await page.locator("#deny-reason").fill("half a sentence")
    await inbox.approve(call, reason="fine")
    await page.get_by_text("bob approved").wait_for()
    assert await page.locator("#deny-reason").input_value() == "half a sentence"
    assert await page.evaluate("document.activeElement.id") == "deny-reason"
    await inbox.approve(call, "carol")
    await page.get_by_role("heading", name="Approved").wait_for()
    assert await page.get_by_role("button", name="Deny").count() == 0


@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
async def test_pages_show_by_themselves_that_the_agent_has_left_and_that_it_is_back(browser, inbox, viewport):
    call = await inbox.hold()
    async with window(browser, inbox.here, viewport=viewport) as page:
        await sign_in(page)
        listed, shown = (
            page.get_by_text("agent not waiting"),
            page.get_by_text("The agent is no longer waiting."),
        )
        for path, gone in (("/", listed), (f"/calls/{call.id}", shown)):
            await page.goto(path)
            await live(page)
            with inbox.service.attend(call.id):
                await inbox.service.sweep()
                await gone.wait_for(state="detached")
            inbox.now += MIN_ATTENDED
            await inbox.service.sweep()
            await gone.first.wait_for()


async def test_a_page_with_a_form_error_stays_live(page, inbox):
    call = await inbox.hold(needed=2)
    await page.goto(f"/calls/{call.id}")
    await page.locator("#deny-reason").fill(" ")
    await page.get_by_role("button", name="Deny").click()
    refusal = page.get_by_role("alert")
    await refusal.wait_for()
    await live(page)
    await inbox.deny(call)
    await page.get_by_role("heading", name="Denied").wait_for()
    # A live update keeps the form's error.
    assert await refusal.is_visible()
    # The browser logs the 400 to its console.
    assert all("400" in said for said in page.complaints)
    page.complaints.clear()


async def test_the_clock_runs_down(page, inbox):
    call = await inbox.hold(expires_at=inbox.now + 3600 * 5)
    await page.goto(f"/calls/{call.id}")
    clock = page.locator(".deadline time")
    assert (await clock.inner_text()).count(":") == 2
    await page.evaluate(
        "document.querySelector('.deadline time').dateTime = new Date(Date.now() + 30500).toISOString()"
    )
    await page.locator(".deadline .until.soon").wait_for()
    await page.evaluate("document.querySelector('.deadline time').dateTime = '2020-01-01T00:00:00Z'")
    await page.locator(".deadline .until", has_text="00:00").wait_for()


async def test_keys_move_and_focus_but_never_decide(page, inbox):
    calls = [await inbox.hold(f"tool_{number}", expires_at=inbox.now + 60 + number) for number in range(3)]
    await page.goto("/")
    focused = "document.activeElement.id"
    for key, expected in (("j", 0), ("j", 1), ("j", 2), ("j", 2), ("k", 1)):
        await page.keyboard.press(key)
        assert await page.evaluate(focused) == f"open-{calls[expected].id}"
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/calls/{calls[1].id}")
    await page.keyboard.press("a")
    assert await page.evaluate(focused) == "approve-button"
    await page.keyboard.press("d")
    assert await page.evaluate(focused) == "deny-reason"
    await page.keyboard.press("a")
    assert await page.locator("#deny-reason").input_value() == "a"
    assert {(await inbox.service.get(call.id)).state for call in calls} == {State.PENDING}


async def test_help_opens_by_key_and_shortcuts_can_be_turned_off(page, inbox):
    await inbox.hold()
    await page.goto("/")
    await page.keyboard.press("?")
    await page.get_by_label("Turn off shortcuts in this browser").check()
    await page.get_by_role("button", name="Close").click()
    await page.keyboard.press("j")
    assert await page.evaluate("document.activeElement.hasAttribute('data-row')") is False
    await page.reload()
    await page.get_by_role("button", name="Shortcuts").click()
    assert await page.get_by_label("Turn off shortcuts in this browser").is_checked()


async def test_a_slash_searches_the_history(page, inbox):
    await inbox.deny(await inbox.hold("findme"))
    await page.goto("/")
    await page.keyboard.press("/")
    await page.wait_for_url("**/history#search")
    await page.keyboard.type("findme")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**q=findme**")
    assert await page.locator("tbody tr").count() == 1
    await page.keyboard.press("/")
    assert await page.evaluate("document.activeElement.id") == "search"


async def test_hostile_text_is_inert(page, inbox):
    dialogs = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    arguments = json.dumps({HOSTILE: HOSTILE}, ensure_ascii=False).encode()
    call = await inbox.hold(
        HOSTILE,
        arguments=arguments,
        agent=HOSTILE,
        owner=HOSTILE,
        server=HOSTILE,
        rule=HOSTILE,
        reason=HOSTILE,
    )
    for path in ("/", f"/calls/{call.id}", "/history"):
        await page.goto(path)
        await live(page)
        assert await page.locator("img[src=x]").count() == 0
        assert "onerror=alert(1)" in await page.locator("#main").inner_text()
        assert "\u202e" not in await page.content()
    await page.goto(f"/calls/{call.id}")
    assert await page.locator("mark", has_text="202E").count() > 0
    assert dialogs == []


async def test_everything_works_without_javascript(browser, inbox):
    one, two = await inbox.hold("one"), await inbox.hold("two", needed=2)
    async with window(browser, inbox.here, java_script_enabled=False) as page:
        await sign_in(page)
        await page.get_by_role("link", name="one on iam").click()
        await page.get_by_text("Exact text that would be sent").click()
        assert await page.get_by_role("region", name="Exact text").inner_text() == '{"user_name":"ana"}'
        await page.get_by_role("button", name="Approve once").click()
        await page.get_by_role("heading", name="Approved").wait_for()
        await page.get_by_role("link", name="two").click()
        await page.locator("#deny-reason").fill("no")
        await page.get_by_role("button", name="Deny").click()
        await page.get_by_role("heading", name="Denied").wait_for()
        await page.get_by_role("link", name="History").click()
        await page.get_by_label("State").select_option("denied")
        await page.get_by_role("button", name="Filter").click()
        assert await page.locator("tbody tr").count() == 1
        await page.get_by_role("button", name="Sign out").click()
        await page.get_by_label("Your approver token").wait_for()
    assert (await inbox.service.get(one.id)).state is State.APPROVED
    assert (await inbox.service.get(two.id)).state is State.DENIED


@pytest.mark.parametrize("scripted", [True, False], ids=["scripts", "none"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
async def test_secrets_must_be_viewed_before_approval(browser, inbox, scripted, viewport):
    call = await inbox.hold(arguments=b'{"password":"hunter2hunter2"}')
    async with window(browser, inbox.here, java_script_enabled=scripted, viewport=viewport) as page:
        await sign_in(page)
        await page.goto(f"/calls/{call.id}")
        assert await page.get_by_role("button", name="Approve once").count() == 0
        await page.locator(".thumb .go" if viewport is PHONE else "#decide > .go").click()
        await page.get_by_role("region", name="Exact text").get_by_text("hunter2hunter2").wait_for()
        if scripted:
            await live(page)
            await inbox.hold("another")
            await page.locator("#nav-waiting", has_text="2").wait_for()
        # Both buttons have this role and name until the style sheet hides one.
        await page.locator(".thumb .yes" if viewport is PHONE else "#approve-button").click()
        await page.get_by_role("heading", name="Approved").wait_for()
    assert (await inbox.service.get(call.id)).state is State.APPROVED


async def test_a_link_works_once_from_the_command_line(browser, inbox):
    async with window(browser, inbox.here) as page:
        await page.goto(f"/login/once/{await inbox.code()}")
        await page.get_by_role("button", name="Open the inbox").click()
        await page.get_by_role("heading", name="Waiting calls").wait_for()
        assert await barriers(page) == []


async def test_a_thumb_reaches_both_buttons_on_a_phone(browser, inbox):
    call = await inbox.hold(
        arguments=json.dumps({f"key_{number}": "x" * 80 for number in range(40)}).encode()
    )
    async with window(browser, inbox.here, viewport=PHONE) as page:
        await sign_in(page)
        await page.goto(f"/calls/{call.id}")
        approve, deny = page.locator(".thumb .yes"), page.locator(".thumb .no")
        yes, no = await approve.bounding_box(), await deny.bounding_box()
        for box in (yes, no):
            assert box["height"] >= 44
            assert PHONE["height"] - 90 < box["y"] < PHONE["height"] - 44
        assert yes["x"] - (no["x"] + no["width"]) >= 40
        assert await page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        await deny.click()
        assert await page.locator("#deny-reason").evaluate("field => field === document.activeElement") in {
            True,
            False,
        }
        await approve.click()
        await page.get_by_role("heading", name="Approved").wait_for()
    assert (await inbox.service.get(call.id)).state is State.APPROVED


async def test_a_phone_shows_the_users_name_beside_sign_out(browser):
    async with (
        Inbox(tools=lambda: list(tools())) as inbox,
        window(browser, inbox.here, viewport=PHONE) as page,
    ):
        await inbox.hold()
        await sign_in(page)
        await live(page)
        name, out = page.get_by_title("Signed in"), page.get_by_role("button", name="Sign out")
        brand = await page.locator(".bar .brand").bounding_box()
        for shown in (name, out):
            box = await shown.bounding_box()
            assert abs(box["y"] + box["height"] / 2 - brand["y"] - brand["height"] / 2) < 2


@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
async def test_a_very_long_name_pushes_nothing_off_the_history(browser, inbox, viewport):
    await inbox.hold("t" * 125, agent="a" * 125)
    await inbox.hold("short")
    async with window(browser, inbox.here, viewport=viewport) as page:
        await sign_in(page)
        await page.goto("/history")
        for state in await page.locator("tbody .tone-wait").all():
            box = await state.bounding_box()
            assert box["x"] + box["width"] <= viewport["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
async def test_no_page_has_accessibility_violations(browser, inbox, scheme, viewport):
    waiting = await inbox.hold(
        arguments=json.dumps({"a": "x\u202ey", "password": "hunter2hunter2", "n": [1, True]}).encode(),
        needed=2,
    )
    await inbox.service.reveal(waiting.id, inbox.directory.by_name("bob"), via="inbox")
    await inbox.approve(waiting, reason="fine")
    done, doubtful = (
        await inbox.run(await inbox.hold("done")),
        await inbox.doubt(await inbox.hold("doubtful")),
    )
    left = await inbox.hold("left")
    inbox.now += MIN_ATTENDED
    denied = await inbox.deny(await inbox.hold("denied"))
    async with window(browser, inbox.here, color_scheme=scheme, viewport=viewport) as page:
        await page.goto("/login")
        assert await barriers(page) == []
        await sign_in(page)
        pages = [f"/calls/{call.id}" for call in (waiting, done, doubtful, left, denied)]
        for path in ("/", "/history", "/history?q=nothing", *pages):
            await page.goto(path)
            await live(page)
            assert await barriers(page) == [], path
        await page.goto("/")
        if viewport is DESK:
            await page.keyboard.press("?")
            assert await barriers(page) == []


async def test_a_new_call_is_announced_while_the_tab_is_hidden_without_its_arguments(page, inbox):
    await page.context.grant_permissions(["notifications"])
    await page.add_init_script(
        "window.Notification = class { static permission = 'granted';"
        " constructor(title, options) { document.body.append(Object.assign(document.createElement('output'),"
        " { textContent: `${title}: ${options.body}` })) } };"
        "Object.defineProperty(document, 'hidden', { get: () => true });"
    )
    await page.goto("/")
    await live(page)
    await inbox.hold(arguments=b'{"secret":"hunter2"}')
    told = page.locator("output")
    await told.wait_for()
    assert await told.all_inner_texts() == ["Okayed: 1 call waiting"]


DETAILS = ToolDetails(
    does='Its server says: "Deletes a user."',
    why=("Deletes or cancels something, possibly for good.",),
    counted="1 parameter, 1 required",
    parameters=(("user_name", "string", True, "Whose account goes."),),
    applies=("A call waits for approval.",),
    answers=tuple((f"Question {number}?", "By a rule:", "policy:\n  hide: [x]") for number in range(6)),
)


def tools():
    """Yield three tools, one of them unclassified."""
    for name, category in (("delete_user", "Destructive"), ("list_users", "Read"), ("zarf", "Other")):
        yield ToolView(
            server="iam", tool=name, description="Deletes a user.", category=category, risk="Critical", severity="high",
            evidence=("delete: removes for good",), action="require_approval", rule="matrix[2]", details=lambda: DETAILS,
        )  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
async def test_the_tool_pages_have_no_accessibility_violations(browser, scheme, viewport):
    options = {"color_scheme": scheme, "viewport": viewport}
    async with Inbox(tools=lambda: list(tools())) as inbox, window(browser, inbox.here, **options) as page:
        await inbox.deny(await inbox.hold("delete_user"))
        await sign_in(page)
        for path in (
            "/tools",
            "/tools?category=Other&server=iam",
            "/tools?risk=Low",
            "/tools/iam/delete_user",
        ):
            await page.goto(path)
            await live(page)
            assert await barriers(page) == [], path
            assert await page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


async def test_tools_are_found_and_opened_without_javascript(browser):
    options = {"java_script_enabled": False, "viewport": DESK}
    async with Inbox(tools=lambda: list(tools())) as inbox, window(browser, inbox.here, **options) as page:
        await sign_in(page)
        await page.get_by_role("link", name="Tools").click()
        await page.get_by_label("Policy").select_option("Needs approval")
        await page.get_by_role("button", name="Filter").click()
        await page.get_by_role("link", name="Destructive 1").click()
        assert await page.locator("tbody tr").count() == 1
        await page.get_by_role("link", name="delete_user").click()
        await page.get_by_role("heading", name="Why it needs a policy").wait_for()
        await page.get_by_text("delete: removes for good").wait_for()


async def test_the_end_of_a_session_is_shown_without_losing_the_page(page, inbox):
    call = await inbox.hold()
    await page.goto(f"/calls/{call.id}")
    await live(page)
    await inbox.store.delete_login(sha256(next(one["value"] for one in await page.context.cookies())))
    await inbox.hold("another")
    await page.locator("#live.lost", has_text="Signed out").wait_for()
    assert await page.get_by_role("heading", name="put_user_policy").count() == 1
