"""The listeners behind nginx with its default settings."""

import asyncio

import aiohttp

from approvals.client_address import TrustedProxies
from approvals.throttle import ATTEMPTS
from hang import HANG
from inbox import Inbox, token
from nginx import nginx


async def test_live_updates_arrive_through_nginx_with_its_defaults(tmp_path):
    async with Inbox() as inbox, nginx(inbox.here, tmp_path) as proxy, aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {token('alice')}"}
        async with asyncio.timeout(HANG), http.get(f"{proxy}/api/v1/events", headers=headers) as stream:
            assert await stream.content.readuntil(b"\n\n") == b"retry: 3000\nevent: inbox\ndata: 0\n\n"
            await inbox.hold()
            assert await stream.content.readuntil(b"\n\n") == b"event: inbox\ndata: 1\n\n"


async def test_wrong_tokens_through_nginx_do_not_lock_out_valid_ones(tmp_path):
    trusted = TrustedProxies.parse(["127.0.0.1"])
    async with Inbox(proxies=trusted) as inbox, nginx(inbox.here, tmp_path) as proxy:
        async with aiohttp.ClientSession(headers={"Sec-Fetch-Site": "same-origin"}) as http:

            async def status(given):
                async with http.post(
                    f"{proxy}/login", data={"token": given}, allow_redirects=False
                ) as answer:
                    return answer.status

            assert [await status("guess") for _ in range(ATTEMPTS + 1)] == [401] * ATTEMPTS + [429]
            assert await status(token("alice")) == 303
