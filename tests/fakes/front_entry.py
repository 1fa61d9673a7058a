"""Passes an exchange to the proxy as the agents' front does: at once if possible, else in a task."""

import asyncio


async def serve(proxy, exchange):
    """Return the reply to an exchange."""
    sending = proxy.at_once(exchange)
    if sending is None:
        return await proxy.handle(exchange)
    answered = asyncio.get_running_loop().create_future()
    sending.start(answered.set_result)
    try:
        return await answered
    except asyncio.CancelledError:
        sending.abandon()
        raise
