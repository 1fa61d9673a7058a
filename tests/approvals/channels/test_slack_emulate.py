"""The Slack channel against a third-party emulator of the Web API."""

import pytest
from slack_sdk.web.async_client import AsyncWebClient

from approval_fixtures import Clock, directory, held
from approvals.channels.slack import SlackChannel
from approvals.model import Decision
from approvals.notices import Notices
from approvals.service import ApprovalService
from approvals.store.memory.store import MemoryStore
from process import free_ports
from slack_emulator import emulated_slack


@pytest.fixture(scope="module")
def api_url():
    with emulated_slack(free_ports(1)[0]) as url:
        yield url


@pytest.fixture
async def world(api_url):
    web = AsyncWebClient(token="xoxb-local-test", base_url=api_url)
    listed = await web.api_call("conversations.list")
    channel_id = listed["channels"][0]["id"]
    clock = Clock()
    service = ApprovalService(MemoryStore(), directory(), clock=clock)
    channel = SlackChannel(bot_token="xoxb-local-test", channel=channel_id, api_url=api_url)
    await channel.start(service)
    yield (
        web,
        channel_id,
        service,
        channel,
        Notices(service, service.store, [channel], url="https://a.example"),
        clock,
    )
    await channel.close()


async def history(web, channel_id):
    found = await web.api_call("conversations.history", data={"channel": channel_id})
    return found["messages"]


async def test_a_card_is_posted_and_updated_after_the_decision(world):
    web, channel_id, service, _, notices, clock = world
    call = await service.hold(held(clock.now))
    await notices.bring_up_to_date()
    [notice] = [one for one in (await service.store.stale_calls("slack", clock.now)) if one[1] is None] or [
        None
    ]
    assert notice is None  # the card was posted
    posted = (await history(web, channel_id))[0]
    assert "Approve put_user_policy on iam?" in posted["text"]
    await service.review(call.id, service.directory.by_name("alice"), Decision.DENY, via="inbox", reason="no")
    await notices.bring_up_to_date()
    updated = (await history(web, channel_id))[0]
    assert updated["ts"] == posted["ts"]
    assert "Denied: put_user_policy on iam" in updated["text"]


async def test_an_unknown_channel_or_message_is_an_error_and_the_call_waits(world):
    _, _, service, channel, notices, clock = world
    channel._channel = "C404"
    call = await service.hold(held(clock.now, tool="other"))
    await notices.bring_up_to_date()
    [(_, notice)] = await service.store.stale_calls("slack", clock.now + 100)
    assert (notice.call, notice.failures, notice.ref) == (call.id, 1, None)
