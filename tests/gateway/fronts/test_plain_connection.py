"""Plain requests, served by the listener's own protocol: order, handover, disconnects, streams, parked replies."""

import asyncio
import dataclasses

import pytest
from msgspec.structs import replace

from gateway.auth.agents import LOCAL, Agent, AuthenticationFailed
from gateway.errors import ConnectionLostError
from gateway.fronts.connection_limits import Deadlines
from gateway.fronts.plain_connection import MAX_UNREAD
from gateway.fronts.plain_front import PlainFront
from gateway.upstreams.reply import Reply, frame_reply
from scripted_proxy import ODD, Agents, post, serving

EVENTS = {"Content-Type": "text/event-stream"}
GET = b"GET /mcp/notes HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class Sent:
    """A call that was sent at once; the test answers it."""

    def __init__(self, reply=None):
        self.reply, self.abandoned = reply, False
        self.started, self.ended = asyncio.Event(), asyncio.Event()

    def start(self, answer):
        self.answer = answer
        self.started.set()
        if self.reply is not None:
            answer(self.reply)

    def abandon(self):
        self.abandoned = True
        self.ended.set()


class Held:
    """The body of a held call: a stream that parks until the test resumes it."""

    def __init__(self, *, parks=True):
        self.parks, self.closed, self.parked = parks, asyncio.Event(), asyncio.Event()
        self.due = []

    def park(self, write, resume):
        if self.due or not self.parks:
            return False
        self.write, self._resume = write, resume
        self.parked.set()
        return True

    def resume(self, *chunks):
        self.parked.clear()
        self.due.extend([*chunks, None])
        self._resume()

    def __aiter__(self):
        return self

    async def __anext__(self):
        if (chunk := self.due.pop(0)) is None:
            raise StopAsyncIteration
        return chunk

    def close(self):
        self.closed.set()

    async def aclose(self):
        self.closed.set()


class Late(Held):
    """A reply whose status is decided when the test resumes it."""

    def resume(self, reply):
        self.reply = reply
        super().resume()

    async def decide(self):
        return self.reply


def tasks():
    """Return the tasks that serve exchanges."""
    return [task for task in asyncio.all_tasks() if "AnsweringConnection" in task.get_coro().__qualname__]


async def until(condition):
    while not condition():
        await asyncio.sleep(0)


def answers(reply):
    """Return a proxy's answer that is always the same."""

    async def answer(_):
        return reply

    return answer


# A call that is sent at once.


async def test_an_answer_that_comes_at_once_needs_no_task():
    async with serving() as front:
        front.proxy.send = lambda exchange: Sent(frame_reply(exchange.body))
        client = await front.connect(*[post(b"%d" % number) for number in range(100)])
        assert await client.answers(100) == [(200, b"%d" % number) for number in range(100)]
        assert tasks() == []
        assert not front.endpoint.running
        client.close()


async def test_an_answer_that_comes_later_holds_the_following_requests_back():
    async with serving() as front:
        sent = Sent()
        front.proxy.send = lambda exchange: sent if exchange.body == b"first" else None
        client = await front.connect(post(b"first"), post(b"second"))
        await sent.started.wait()
        assert tasks() == []
        assert len(front.endpoint.running) == 1
        sent.answer(frame_reply(b"late"))
        assert await client.answers(2) == [(200, b"late"), (200, b"second")]
        assert [exchange.body for exchange in front.proxy.received] == [b"first", b"second"]
        client.close()


async def test_a_call_is_abandoned_when_its_client_leaves():
    async with serving() as front:
        sent = Sent()
        front.proxy.send = lambda _: sent
        client = await front.connect(post())
        await sent.started.wait()
        client.close()
        await sent.ended.wait()
        assert sent.abandoned
        assert not front.endpoint.running


async def test_an_answer_at_once_may_be_a_stream():
    async def chunks():
        yield b"one"
        yield b""
        yield b"two"

    closed, delivered = asyncio.Event(), asyncio.Event()

    async def note():
        delivered.set()

    async with serving() as front:
        reply = Reply(status=200, headers=EVENTS, chunks=chunks(), close=closed.set, delivered=note)
        front.proxy.send = lambda _: Sent(reply)
        client = await front.connect(post())
        assert await client.answers() == [(200, b"onetwo")]
        await closed.wait()
        assert delivered.is_set()
        client.close()


async def test_the_delivery_of_an_answer_at_once_is_recorded():
    delivered = asyncio.Event()

    async def note():
        delivered.set()

    async with serving() as front:
        front.proxy.send = lambda _: Sent(replace(frame_reply(b"answer"), delivered=note))
        client = await front.connect(post())
        assert await client.answers() == [(200, b"answer")]
        await delivered.wait()
        client.close()


# Order and handover.


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
async def test_plain_and_odd_requests_on_one_connection_are_answered_in_order(size):
    async with serving() as front:
        sent = b"".join(
            [
                post(b"1"),
                post(b"2"),
                post(b"3", headers=ODD),
                post(b"4"),
                post(b"5" * 3000, headers=ODD),
                post(b"6"),
            ]
        )
        client = await front.connect()
        for at in range(0, len(sent), size):
            client.send(sent[at : at + size])
            await asyncio.sleep(0)
        bodies = [b"1", b"2", b"3", b"4", b"5" * 3000, b"6"]
        assert await client.answers(6) == [(200, body) for body in bodies]
        assert [exchange.body for exchange in front.proxy.received] == bodies
        assert len(front.connections) == 1
        client.close()


async def test_an_odd_request_waits_for_the_answer_to_the_plain_one_before_it():
    async with serving() as front:
        sent = Sent()
        front.proxy.send = lambda exchange: sent if exchange.body == b"first" else None
        client = await front.connect(post(b"first"), post(b"odd", headers=ODD))
        await sent.started.wait()
        assert [exchange.body for exchange in front.proxy.received] == [b"first"]
        sent.answer(frame_reply(b"answer"))
        assert await client.answers(2) == [(200, b"answer"), (200, b"odd")]
        client.close()


async def test_a_request_that_arrives_byte_by_byte_is_plain():
    async with serving() as front:
        front.proxy.send = lambda exchange: Sent(frame_reply(exchange.body))
        client = await front.connect()
        for at in range(len(post(b"slow"))):
            client.send(post(b"slow")[at : at + 1])
            await client.writer.drain()
            await asyncio.sleep(0)
        assert await client.answers() == [(200, b"slow")]
        client.close()


async def test_a_connection_whose_reading_is_paused_goes_on_after_the_handover():
    async with serving() as front:
        client = await front.connect()
        await until(lambda: len(front.connections))
        [connection] = front.connections
        make = connection._front.make_successor

        async def make_late(timer):
            await until(lambda: connection._paused)
            return await make(timer)

        connection._front.make_successor = make_late
        odd = GET.replace(b"Host", ODD + b"Host") * 1200  # aiohttp resumes reading by itself only for a body
        client.send(odd[: MAX_UNREAD + 1000])
        await until(lambda: connection._paused)
        client.send(odd[MAX_UNREAD + 1000 :], post(b"next"))
        assert await client.answers(1201) == [(200, b"hello")] * 1200 + [(200, b"next")]
        client.close()


async def test_a_client_that_leaves_during_the_handover_is_forgotten():
    async with serving() as front:
        client = await front.connect(post(b"odd", headers=ODD))
        client.writer.transport.abort()
        await until(lambda: len(front.connections) == 0)


async def test_connection_close_is_honoured():
    async with serving() as front:
        client = await front.connect(post(b"last", headers=b"Connection: close\r\n"), post(b"too late"))
        status, headers = await client.head()
        assert (status, headers["connection"], await client.rest()) == (200, "close", b"last")
        assert len(front.proxy.received) == 1
        client.close()


# Clients that leave.


@pytest.mark.parametrize("half", [True, False])
async def test_an_exchange_is_cancelled_when_its_client_leaves(half):
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(_):
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with serving() as front:
        front.proxy.answer = wait
        client = await front.connect(post())
        await began.wait()
        client.writer.write_eof() if half else client.close()
        await cancelled.wait()
        await until(lambda: len(front.connections) == 0)
        assert not front.endpoint.running
        client.close()


async def test_a_body_that_does_not_arrive_frees_what_was_reserved_for_it():
    async with serving() as front:
        front.proxy.settings.shares = dataclasses.replace(front.proxy.settings.shares, bodies=1000)
        leaving = await front.connect(post(b"x" * 900)[:-1])
        await until(lambda: front.endpoint.running)
        client = await front.connect(post(b"y" * 200), post(b"z"))
        assert [status for status, _ in await client.answers(2)] == [429, 200]
        leaving.close()
        await until(lambda: not front.endpoint.running)
        client.send(post(b"y" * 200))
        assert await client.answers() == [(200, b"y" * 200)]
        client.close()


async def test_the_bytes_of_a_body_are_counted_only_until_its_call_is_sent():
    async with serving() as front:
        sent = Sent()
        front.proxy.send = lambda _: sent
        client = await front.connect(post(b"x" * 100)[:-50])
        await until(lambda: front.endpoint.bodies._open)
        client.send(b"x" * 50)
        await sent.started.wait()
        assert not front.endpoint.bodies._open
        client.close()
        await sent.ended.wait()


@pytest.mark.parametrize("sent", [1000, 990])
async def test_the_bytes_of_an_odd_body_are_counted_until_its_client_leaves(sent):
    async with serving() as front:
        front.proxy.answer = lambda _: asyncio.Event().wait()
        odd = post(b"x" * 1000, headers=ODD)
        client = await front.connect(odd[: len(odd) - 1000 + sent])
        await until(lambda: front.endpoint.bodies._open == {LOCAL.name: 1000})
        client.writer.transport.abort()
        await until(lambda: not front.endpoint.bodies._open)


async def test_a_stream_is_closed_when_its_client_leaves():
    closed = asyncio.Event()

    async def chunks():
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with serving() as front:
        front.proxy.answer = answers(Reply(status=200, headers=EVENTS, chunks=chunks()))
        client = await front.connect(post())
        await client.head()
        assert await client.chunk() == b"first"
        client.close()
        await closed.wait()


async def test_a_parked_reply_is_closed_when_its_client_leaves():
    async with serving() as front:
        body, released = Held(), asyncio.Event()
        front.proxy.answer = answers(Reply(status=200, headers=EVENTS, chunks=body, close=released.set))
        client = await front.connect(post())
        await body.parked.wait()
        client.close()
        await body.closed.wait()
        assert released.is_set()
        assert not front.endpoint.running


@pytest.mark.parametrize("make", [Held, Late])
async def test_a_reply_that_resumes_as_its_client_leaves_is_closed(make):
    async with serving() as front:
        body = make()
        reply = Reply(status=200, headers=EVENTS, chunks=body, close=body.close)
        front.proxy.answer = answers(body if make is Late else reply)
        client = await front.connect(post())
        await body.parked.wait()
        [connection] = front.endpoint.running
        connection.abort()  # noted in the next turn of the loop, before the new task begins
        body.resume(frame_reply(b"late") if make is Late else b"late")
        await body.closed.wait()
        assert not front.endpoint.running
        client.close()


async def test_a_stream_that_starts_as_its_client_leaves_is_released():
    async with serving() as front:
        sent, body = Sent(), Held()
        front.proxy.send = lambda _: sent
        client = await front.connect(post())
        await sent.started.wait()
        [connection] = front.endpoint.running
        connection.abort()
        sent.answer(Reply(status=200, headers=EVENTS, chunks=body, close=body.close))
        await body.closed.wait()
        assert not front.endpoint.running
        client.close()


@pytest.mark.parametrize("parks", [True, False])
async def test_an_answer_that_the_client_does_not_await_is_released_and_not_delivered(parks):
    delivered, released = asyncio.Event(), asyncio.Event()

    async def note():
        delivered.set()

    async with serving() as front:
        body = Held(parks=parks)
        body.due = [] if parks else [b"x" * (1 << 24), None]
        reply = Reply(status=200, headers=EVENTS, chunks=body, close=released.set, delivered=note)
        front.proxy.answer = answers(reply)
        client = await front.connect(post())
        await client.head()
        client.writer.transport.abort()
        await body.closed.wait()
        await released.wait()
        assert not delivered.is_set()


async def test_a_broken_connection_records_no_delivery():
    async with serving() as front:
        released, delivered = asyncio.Event(), asyncio.Event()

        async def note():
            delivered.set()

        async def break_off(_):
            [connection] = [*front.connections]
            connection.abort()
            return replace(frame_reply(b"answer"), close=released.set, delivered=note)

        front.proxy.answer = break_off
        client = await front.connect(post())
        await released.wait()
        assert not delivered.is_set()
        client.close()


# Streams, and replies that park.


async def test_a_parked_reply_needs_no_task_and_continues_when_it_resumes():
    delivered = asyncio.Event()

    async def note():
        delivered.set()

    async with serving() as front:
        body = Held()
        front.proxy.answer = answers(Reply(status=200, headers=EVENTS, chunks=body, delivered=note))
        client = await front.connect(post(), post())
        status, headers = await client.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        await until(lambda: not tasks())
        assert len(front.endpoint.running) == 1
        body.write(b": sign\n\n")
        assert await client.chunk() == b": sign\n\n"
        assert not delivered.is_set()
        body.resume(b"answer")
        assert [await client.chunk() for _ in range(2)] == [b"answer", b""]
        await delivered.wait()
        client.close()


async def test_a_late_reply_is_written_when_it_is_decided():
    async with serving() as front:
        late = Late()
        front.proxy.answer = answers(late)
        client = await front.connect(post())
        await late.parked.wait()
        await until(lambda: not tasks())
        late.write(b"nothing is written before the status")
        late.resume(frame_reply(b"decided", status=202))
        assert await client.answers() == [(202, b"decided")]
        client.close()


async def test_a_late_reply_is_closed_when_its_client_leaves():
    async with serving() as front:
        late = Late()
        front.proxy.answer = answers(late)
        client = await front.connect(post())
        await late.parked.wait()
        client.close()
        await late.closed.wait()


async def test_a_client_that_does_not_read_gets_no_signs_of_life():
    async with serving() as front:
        body = Held()
        front.proxy.answer = answers(Reply(status=200, headers=EVENTS, chunks=body))
        client = await front.connect(post())
        await client.head()
        client.writer.transport.pause_reading()
        await body.parked.wait()
        [connection] = front.endpoint.running
        waits = connection._transport.get_write_buffer_size
        while connection._drained is None:
            body.write(b"x" * (1 << 16))
        full = waits()
        body.write(b"x" * (1 << 16))
        assert waits() == full
        client.writer.transport.abort()
        await body.closed.wait()


async def test_a_client_that_does_not_read_its_answers_is_not_read_from():
    async with serving(Deadlines(unread=0.1, tick=0.01)) as front:
        front.proxy.send = lambda _: Sent(frame_reply(b"x" * (1 << 20)))
        client = await front.connect(*[post() for _ in range(200)])
        client.writer.transport.pause_reading()
        await until(lambda: len(front.connections) == 0 and front.proxy.received)
        assert len(front.proxy.received) < 100
        client.close()


async def test_only_a_part_of_what_a_client_sends_ahead_is_read():
    async with serving() as front:
        sent = Sent()
        front.proxy.send = lambda exchange: sent if exchange.body == b"first" else None
        client = await front.connect(post(b"first"))
        await sent.started.wait()
        client.send(post(b"x" * 1000) * 20_000)
        [connection] = front.endpoint.running
        await until(lambda: not connection._transport.is_reading())
        for _ in range(1000):
            await asyncio.sleep(0)
        assert len(connection._unread) < 1 << 20
        sent.answer(frame_reply(b"late"))
        assert len(await client.answers(20_001)) == 20_001
        client.close()


async def test_a_stream_waits_for_its_reader():
    produced = []

    async def chunks():
        for number in range(1000):
            produced.append(number)
            yield b"x" * (1 << 16)

    async with serving() as front:
        front.proxy.answer = answers(Reply(status=200, headers=EVENTS, chunks=chunks()))
        client = await front.connect(post())
        await client.head()
        client.writer.transport.pause_reading()
        [task] = tasks()
        await asyncio.wait([task], timeout=0.2)
        assert len(produced) < 500
        client.writer.transport.resume_reading()
        while await client.chunk():
            pass
        assert len(produced) == 1000
        client.close()


async def test_a_stream_that_breaks_off_has_no_end():
    async def chunks():
        yield b"first"
        raise ConnectionLostError

    async with serving() as front:
        front.proxy.answer = answers(Reply(status=200, headers=EVENTS, chunks=chunks()))
        client = await front.connect(post(), post())
        assert (await client.rest()).endswith(b"5\r\nfirst\r\n")
        client.close()


@pytest.mark.parametrize("status", [202, 204, 304])
async def test_a_reply_without_a_body_is_complete(status):
    async with serving() as front:
        front.proxy.answer = answers(Reply(status=status))
        client = await front.connect(post(), post())
        assert [(await client.head())[0] for _ in range(2)] == [status] * 2
        client.close()


async def test_a_fault_closes_the_connection_and_is_logged(caplog):
    async def fail(_):
        raise ValueError

    async with serving() as front:
        front.proxy.answer = fail
        client = await front.connect(post())
        assert await client.rest() == b""
        client.close()
    assert [record.message for record in caplog.records] == ["an exchange failed"]


# Refusals and tokens.


async def test_after_a_refusal_the_connection_goes_on_and_the_body_is_dropped():
    async with serving() as front:
        refused = post(post() * 100_000, headers=b"Origin: https://evil.example\r\n")
        client = await front.connect(refused, post(b"next"))
        assert [(status, body[:1]) for status, body in await client.answers(2)] == [(403, b"{"), (200, b"n")]
        assert [exchange.body for exchange in front.proxy.received] == [b"next"]
        client.close()


class Slow(Agents):
    """Agents whose tokens take time to verify."""

    def __init__(self):
        self.verified, self.asked = asyncio.Event(), asyncio.Event()
        self.refused = False

    def authenticate_at_once(self, authorization, server):
        return None

    async def authenticate(self, authorization, server):
        self.asked.set()
        await self.verified.wait()
        if self.refused:
            raise AuthenticationFailed(401, "The token has expired.")
        return LOCAL


@pytest.mark.parametrize("refused", [True, False])
async def test_a_body_is_read_only_after_a_slow_token_was_verified(refused):
    agents = Slow()
    agents.refused = refused
    async with serving(agents=agents) as front:
        client = await front.connect(post(b"x" * 200_000), post(b"next"))
        await agents.asked.wait()
        assert front.proxy.received == []
        assert not front.endpoint.bodies._open
        agents.verified.set()
        expected = [401, 401] if refused else [200, 200]
        assert [status for status, _ in await client.answers(2)] == expected
        client.close()


@pytest.mark.parametrize("kind", [Agents, Slow])
async def test_another_media_type_is_refused_every_time(kind):
    agents = kind()
    if kind is Slow:
        agents.verified.set()
    async with serving(agents=agents) as front:
        other = post().replace(b"application/json", b"text/plain")
        client = await front.connect(*[other] * 3, post())
        assert [status for status, _ in await client.answers(4)] == [415, 415, 415, 200]
        client.close()


async def test_a_client_that_leaves_while_its_token_is_verified_is_forgotten():
    agents = Slow()
    async with serving(agents=agents) as front:
        client = await front.connect(post())
        await agents.asked.wait()
        client.close()
        await until(lambda: len(front.connections) == 0)


async def test_a_known_token_is_asked_for_again_after_a_reload():
    class Named(Agents):
        def __init__(self, name):
            self.name, self.asked = name, 0

        def authenticate_at_once(self, authorization, server):
            self.asked += 1
            if self.name is None:
                raise AuthenticationFailed(401, "Unknown.")
            return Agent(name=self.name)

    first, second, third = Named("first"), Named("second"), Named(None)
    async with serving(agents=first) as front:
        policy, current = front.endpoint.policy, first
        object.__setattr__(policy, "agents", lambda: current)
        client = await front.connect(post(), post())
        assert len(await client.answers(2)) == 2
        current = second
        client.send(post())
        await client.answers()
        assert [exchange.agent.name for exchange in front.proxy.received] == ["first", "first", "second"]
        assert (first.asked, second.asked) == (1, 1)
        current = third
        client.send(post())
        assert [status for status, _ in await client.answers()] == [401]
        client.close()


async def test_the_head_of_a_refused_request_is_not_kept():
    class Refusing(Agents):
        def authenticate_at_once(self, authorization, server):
            raise AuthenticationFailed(401, "Unknown.")

    for agents, kept in ((Refusing(), 0), (Agents(), 1)):
        async with serving(agents=agents) as served:
            front = PlainFront(served.endpoint, served.connections, None, 0)
            known, _ = front.heads.read(post().partition(b"{}")[0])
            front.authenticate(known, asyncio.Transport())
            assert len(front.heads) == kept


# The end.


async def test_shutdown_waits_for_a_call_that_was_sent_at_once_and_for_a_parked_one():
    async with serving() as front:
        sent, body = Sent(), Held()
        object.__setattr__(front.endpoint.policy, "stop", answers_seconds)
        front.proxy.send = lambda exchange: sent if exchange.body == b"call" else None
        front.proxy.answer = answers(Reply(status=200, headers=EVENTS, chunks=body))
        clients = [await front.connect(post(b"call")), await front.connect(post(b"held"))]
        await sent.started.wait()
        await body.parked.wait()
        ending = asyncio.ensure_future(front.endpoint.finish())
        await asyncio.wait([ending], timeout=0.1)
        sent.answer(frame_reply(b"answer"))
        assert await clients[0].answers() == [(200, b"answer")]
        await asyncio.wait([ending], timeout=0.1)
        assert not ending.done()
        body.resume(b"decided")
        assert await clients[1].answers() == [(200, b"decided")]
        await ending
        for client in clients:
            client.close()


async def answers_seconds():
    return 3600.0


async def test_a_subscription_does_not_delay_shutdown():
    async with serving() as front:
        object.__setattr__(front.endpoint.policy, "stop", answers_seconds)
        began = asyncio.Event()

        async def listen(_):
            began.set()
            await asyncio.Event().wait()

        front.proxy.answer = listen
        client = await front.connect(GET)
        await began.wait()
        await front.endpoint.finish()
        client.close()


async def test_when_the_listener_closes_a_running_exchange_ends_and_an_idle_connection_closes():
    async with serving() as front:
        idle = await front.connect(post())
        await idle.answers()
        go, began = asyncio.Event(), asyncio.Event()

        async def wait(exchange):
            began.set()
            await go.wait()
            return frame_reply(b"done")

        front.proxy.answer = wait
        busy = await front.connect(post(), post())
        await began.wait()
        asyncio.get_running_loop().call_later(0.05, go.set)
    assert await idle.rest() == b""
    status, headers = await busy.head()
    assert (status, headers["connection"], await busy.rest()) == (200, "close", b"done")
    for client in (idle, busy):
        client.close()


async def test_between_two_requests_a_connection_has_the_time_limit_of_an_idle_one():
    async with serving(Deadlines(first=0.05, head=0.05, body=0.05, idle=3600.0, tick=0.01)) as front:
        client, silent = await front.connect(post()), await front.connect()
        assert await client.answers() == [(200, b"{}")]
        assert await silent.rest() == b""
        client.send(post(b"again"))
        assert await client.answers() == [(200, b"again")]
        for one in (client, silent):
            one.close()
