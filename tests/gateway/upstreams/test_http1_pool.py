"""The pool of connections to a server: its limit, its queue, idle connections, cancellation and TLS."""

import asyncio
import datetime as dt
import ipaddress
import socket
import ssl
from contextlib import asynccontextmanager

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.errors import ConnectionLostError, NotSentError, ResponseTooLargeError
from gateway.upstreams.credentials import FixedCredentials
from gateway.upstreams.http import HttpUpstream
from gateway.upstreams.http1 import pool as pools
from gateway.upstreams.http1.pool import ConnectionPool
from gateway.upstreams.http1.response_body import MAX_BUFFERED
from gateway.upstreams.reply import MAX_ANSWER, read_body
from gateway.upstreams.requests import RequestFilter
from hang import HANG

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class RawServer:
    """A server that counts connections and requests, and answers a request when it is told to."""

    def __init__(self, answer: bytes = OK) -> None:
        self.answer = answer
        self.accepted = 0
        self.closed = 0
        self.requests: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []
        #: One permit for each request that may be answered.
        self.permits = asyncio.Semaphore(0)
        self._changed = asyncio.Condition()

    async def serve(self, reader, writer) -> None:
        self.accepted += 1
        self.writers.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                await self._note(head + await reader.readexactly(length))
                await self._wait_for_permit(reader)
                writer.write(self.answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.closed += 1
            writer.close()
            async with self._changed:
                self._changed.notify_all()

    async def _wait_for_permit(self, reader) -> None:
        """Wait until the request may be answered; raises `ConnectionError` if the client leaves."""
        permit, gone = asyncio.ensure_future(self.permits.acquire()), asyncio.ensure_future(reader.read(1))
        await asyncio.wait([permit, gone], return_when=asyncio.FIRST_COMPLETED)
        if not permit.done():
            permit.cancel()
            raise ConnectionError
        gone.cancel()
        await asyncio.wait([gone])

    async def _note(self, request: bytes) -> None:
        self.requests.append(request)
        async with self._changed:
            self._changed.notify_all()

    async def until(self, condition) -> None:
        async with asyncio.timeout(HANG), self._changed:
            await self._changed.wait_for(condition)

    def allow(self, answers: int = 1) -> None:
        for _ in range(answers):
            self.permits.release()

    def bodies(self) -> list[str]:
        return [request.partition(b"\r\n\r\n")[2].decode() for request in self.requests]


@asynccontextmanager
async def raw_server(answer: bytes = OK, **options):
    raw = RawServer(answer)
    listening = await asyncio.start_server(raw.serve, options.pop("host", "127.0.0.1"), 0, **options)
    raw.port = listening.sockets[0].getsockname()[1]
    raw.url = f"http://127.0.0.1:{raw.port}/mcp"
    try:
        yield raw
    finally:
        listening.close()
        for writer in raw.writers:
            writer.transport.abort()


def upstream(url, pool) -> HttpUpstream:
    return HttpUpstream(url, FixedCredentials(), pool)


async def send(url, pool, body=b"x") -> bytes:
    async with asyncio.timeout(HANG):
        return await read_body(await upstream(url, pool).send("POST", body, {}))


async def turn() -> None:
    """Let everything run that can run now."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def pool():
    async with ConnectionPool(1) as pool:
        yield pool


async def test_an_idle_connection_is_used_again(pool):
    async with raw_server() as raw:
        raw.allow(3)
        for _ in range(3):
            assert await send(raw.url, pool) == b"{}"
        assert raw.accepted == 1


async def test_the_limit_holds_and_the_queue_is_served_in_order():
    async with raw_server() as raw, ConnectionPool(2) as pool:
        sends = []
        for number in range(8):
            sends.append(asyncio.ensure_future(send(raw.url, pool, b"%d" % number)))
            await turn()
        await raw.until(lambda: len(raw.requests) == 2)
        assert raw.accepted == 2
        for answered in range(8):
            raw.allow()
            await raw.until(lambda: len(raw.requests) == min(answered + 3, 8))
        assert await asyncio.gather(*sends) == [b"{}"] * 8
        assert raw.bodies()[2:] == ["2", "3", "4", "5", "6", "7"]
        assert raw.accepted == 2


async def posted(raw, pool, then) -> None:
    """Post on the idle connection; *then* is called with the reply, before anything else can run."""
    received = asyncio.get_running_loop().create_future()

    def receive(reply) -> None:
        received.set_result(reply)
        then()

    raw.allow()
    await send(raw.url, pool)
    upstream(raw.url, pool).line().post(b"first", {}, receive)
    await raw.until(lambda: len(raw.requests) == 2)
    return received


async def test_a_line_does_not_overtake_the_queue(pool):
    async with raw_server() as raw:
        lines = []
        first = await posted(raw, pool, lambda: lines.append(upstream(raw.url, pool).line()))
        second = asyncio.ensure_future(send(raw.url, pool))
        await turn()
        raw.allow(2)
        assert await second == b"{}"
        assert first.done()
        assert lines == [None]
        assert upstream(raw.url, pool).line() is not None


async def test_cancelling_in_the_queue_gives_the_turn_to_the_next(pool):
    async with raw_server() as raw:
        sends = []
        for number in range(3):
            sends.append(asyncio.ensure_future(send(raw.url, pool, b"%d" % number)))
            await turn()
        await raw.until(lambda: raw.requests)
        sends[1].cancel()
        await turn()
        assert len(pool._queue) == 1
        raw.allow(2)
        assert await asyncio.gather(sends[0], sends[2]) == [b"{}", b"{}"]
        assert raw.bodies() == ["0", "2"]
        assert (pool._unused, list(pool._queue)) == (1, [])


async def test_a_turn_that_comes_while_its_request_is_cancelled_is_passed_on(pool):
    async with raw_server() as raw:
        await posted(raw, pool, lambda: second.cancel())
        second = asyncio.ensure_future(send(raw.url, pool, b"second"))
        third = asyncio.ensure_future(send(raw.url, pool, b"third"))
        await turn()
        raw.allow(2)
        assert await third == b"{}"
        assert raw.bodies() == ["x", "first", "third"]
        assert pool._unused == 1


async def test_a_request_that_is_cancelled_just_before_its_turn_comes_is_cancelled(pool):
    async with raw_server() as raw:
        await posted(raw, pool, lambda: None)
        second = asyncio.ensure_future(send(raw.url, pool, b"second"))
        third = asyncio.ensure_future(send(raw.url, pool, b"third"))
        await turn()
        [connection] = pool._connections
        take_back = connection._on_idle

        def cancel_first(idle) -> None:
            second.cancel()
            take_back(idle)

        connection._on_idle = cancel_first
        raw.allow(2)
        assert await third == b"{}"
        with pytest.raises(asyncio.CancelledError):
            await second
        assert (pool._unused, list(pool._queue)) == (1, [])


async def test_cancelling_while_connecting_frees_the_place(pool, monkeypatch):
    connecting = asyncio.Event()

    async def never(_self, _address):
        connecting.set()
        await asyncio.Event().wait()

    async with raw_server() as raw:
        with monkeypatch.context() as patched:
            patched.setattr(ConnectionPool, "_connect_socket", never)
            sending = asyncio.ensure_future(send(raw.url, pool))
            await connecting.wait()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        raw.allow()
        assert await send(raw.url, pool) == b"{}"


@pytest.mark.parametrize("size", [2, 64 << 20])
async def test_cancelling_while_a_request_is_written_or_answered_closes_its_connection(pool, size):
    async with raw_server() as raw:
        sending = asyncio.ensure_future(send(raw.url, pool, b"x" * size))
        if size == 2:
            await raw.until(lambda: raw.requests)
        else:
            async with asyncio.timeout(HANG):
                while not raw.accepted:
                    await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await raw.until(lambda: raw.closed == 1)
        raw.allow(9)
        assert await send(raw.url, pool) == b"{}"
        assert raw.accepted == 2


async def test_cancelling_while_a_body_is_read_closes_its_connection(pool):
    async with raw_server(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: x\n\n") as raw:
        raw.allow()
        reply = await upstream(raw.url, pool).send("POST", b"", {})
        assert await anext(reply.chunks) == b": x\n\n"
        reading = asyncio.ensure_future(anext(reply.chunks))
        await turn()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        reply.close()
        await raw.until(lambda: raw.closed == 1)


@pytest.mark.parametrize("size", [1, MAX_BUFFERED * 2, MAX_ANSWER + 1])
async def test_an_answer_that_is_not_read_to_its_end_frees_its_connection(pool, size):
    """Its client leaves, or it is too long."""
    endless = OK.replace(b"Content-Length: 2\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n")
    async with raw_server(endless + b"%x\r\n%b\r\n" % (size, b" " * size)) as raw:
        filtered = RequestFilter("notes", upstream(raw.url, pool), [])
        sending = asyncio.ensure_future(filtered.send("POST", b"x", {}))
        raw.allow()
        if size <= MAX_ANSWER:
            await raw.until(lambda: raw.requests)
            await turn()
            sending.cancel()
        with pytest.raises(asyncio.CancelledError if size <= MAX_ANSWER else ResponseTooLargeError):
            await sending
        raw.answer = OK
        raw.allow()
        assert await send(raw.url, pool) == b"{}"


async def test_a_stream_that_starts_as_its_request_is_cancelled_is_closed(pool):
    async with raw_server() as raw:
        raw.allow()
        await send(raw.url, pool)
        sending = asyncio.ensure_future(upstream(raw.url, pool).send("POST", b"", {}))
        await raw.until(lambda: len(raw.requests) == 2)
        [connection] = pool._connections
        connection.data_received(OK.replace(b"application/json", b"text/event-stream")[:-2])
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await raw.until(lambda: raw.closed == 1)


async def test_releasing_a_line_whose_connection_ended_frees_one_place(pool):
    async with raw_server() as raw:
        raw.allow()
        await send(raw.url, pool)
        line = upstream(raw.url, pool).line()
        [connection] = pool._connections
        connection.close()
        await turn()
        line.release()
        assert (pool._unused, upstream(raw.url, pool).line()) == (1, None)


async def test_a_connection_that_the_server_closed_is_not_used_again(pool):
    async with raw_server() as raw:
        raw.allow(2)
        await send(raw.url, pool)
        raw.writers[0].close()
        await raw.until(lambda: raw.closed == 1)
        async with asyncio.timeout(HANG):
            while upstream(raw.url, pool)._requests._connections:
                await asyncio.sleep(0)
        assert await send(raw.url, pool) == b"{}"
        assert raw.accepted == 2


async def test_a_connection_that_is_closing_is_not_used_again(pool):
    async with raw_server() as raw:
        raw.allow(2)
        await send(raw.url, pool)
        [connection] = pool._connections
        connection._transport.close()
        assert upstream(raw.url, pool).line() is None
        assert await send(raw.url, pool) == b"{}"
        assert raw.accepted == 2


async def test_a_post_that_meets_a_closing_connection_leaves_doubt_and_is_not_repeated(pool):
    async with raw_server() as raw:
        raw.allow()
        await send(raw.url, pool)
        line = upstream(raw.url, pool).line()
        raw.writers[0].transport.abort()  # the client does not know yet
        received = asyncio.get_running_loop().create_future()
        line.post(b"y", {}, received.set_result)
        async with asyncio.timeout(HANG):
            assert type(await received) is ConnectionLostError
        assert raw.bodies() == ["x"]
        assert pool._unused == 1


async def test_a_request_is_never_sent_twice():
    async with raw_server(b"") as raw, ConnectionPool(4) as pool:
        sends = [asyncio.ensure_future(send(raw.url, pool, b"%d" % number)) for number in range(4)]
        await raw.until(lambda: len(raw.requests) == 4)
        for writer in raw.writers:
            writer.transport.abort()
        answers = await asyncio.gather(*sends, return_exceptions=True)
        assert [type(answer) for answer in answers] == [ConnectionLostError] * 4
        assert sorted(raw.bodies()) == ["0", "1", "2", "3"]


async def test_idle_connections_are_closed_after_a_while(monkeypatch):
    monkeypatch.setattr(pools, "KEEP_ALIVE_SECONDS", 0.05)
    async with raw_server() as raw, ConnectionPool(3) as pool:
        raw.allow(3)
        await asyncio.gather(*(send(raw.url, pool) for _ in range(3)))
        assert raw.accepted == 3
        await raw.until(lambda: raw.closed == 3)
        assert (pool._expiry, pool._unused) == (None, 3)


async def test_an_expired_connection_is_not_used_although_its_timer_is_late(pool):
    async with raw_server() as raw:
        raw.allow(2)
        await send(raw.url, pool)
        [connection] = pool._connections
        connection.idle_since -= pools.KEEP_ALIVE_SECONDS
        assert upstream(raw.url, pool).line() is None
        assert await send(raw.url, pool) == b"{}"
        assert raw.accepted == 2


async def test_closing_the_pool_fails_requests_and_the_queue():
    async with raw_server() as raw:
        pool = ConnectionPool(1)
        sends = []
        for _ in range(2):
            sends.append(asyncio.ensure_future(send(raw.url, pool)))
            await turn()
        await raw.until(lambda: raw.requests)
        await pool.close()
        answers = await asyncio.gather(*sends, return_exceptions=True)
        assert [type(answer) for answer in answers] == [ConnectionLostError, NotSentError]
        with pytest.raises(NotSentError, match="are closed"):
            await send(raw.url, pool)
        assert (raw.accepted, len(raw.requests)) == (1, 1)


async def test_a_request_whose_pool_closes_while_it_connects_is_not_sent(monkeypatch):
    connecting, closed, connect = asyncio.Event(), asyncio.Event(), ConnectionPool._connect_socket

    async def connect_late(pool, address):
        connecting.set()
        await closed.wait()
        return await connect(pool, address)

    monkeypatch.setattr(ConnectionPool, "_connect_socket", connect_late)
    async with raw_server() as raw:
        async with ConnectionPool(1) as pool:
            sending = asyncio.ensure_future(send(raw.url, pool))
            await connecting.wait()
        closed.set()
        with pytest.raises(NotSentError):
            await sending
        await raw.until(lambda: raw.closed == 1)
        assert raw.requests == []


async def test_a_server_that_takes_no_connection_in_time_is_sent_nothing(pool, monkeypatch):
    async def never(_self, _address):
        await asyncio.Event().wait()

    monkeypatch.setattr(pools, "CONNECT_SECONDS", 0.05)
    monkeypatch.setattr(ConnectionPool, "_connect_socket", never)
    with pytest.raises(NotSentError, match=r"could not be reached \(no connection within 0 s\)"):
        await send("http://127.0.0.1:9/", pool)
    assert pool._unused == 1


@pytest.mark.parametrize("host", ["unknown.invalid", "a..invalid", "x" * 64 + ".invalid"])
async def test_an_unknown_host_is_sent_nothing(pool, host):
    with pytest.raises(NotSentError, match="could not be reached"):
        await send(f"http://{host}/", pool)
    assert pool._unused == 1


async def test_two_origins_share_the_limit_and_not_the_connections(pool):
    async with raw_server() as one, raw_server() as other:
        one.allow(2)
        other.allow(1)
        await send(one.url, pool)
        await send(other.url, pool)
        await send(one.url, pool)
        assert (one.accepted, other.accepted) == (1, 1)


async def test_localhost_is_reached_at_whichever_address_the_server_has(pool):
    async with raw_server() as raw:
        raw.allow()
        assert await send(f"http://localhost:{raw.port}/", pool) == b"{}"
        assert f"host: localhost:{raw.port}".encode() in raw.requests[0]


async def test_ipv6_addresses_are_reached(pool):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6")
    async with raw_server(host="::1") as raw:
        raw.allow()
        assert await send(f"http://[::1]:{raw.port}/", pool) == b"{}"


async def test_a_unix_socket_takes_the_place_of_every_address(tmp_path):
    raw = RawServer()
    raw.allow(2)
    listening = await asyncio.start_unix_server(raw.serve, path := str(tmp_path / "s"))
    async with ConnectionPool(path=path) as pool:
        assert await send("http://localhost/mcp", pool) == b"{}"
    async with ConnectionPool(path=str(tmp_path / "none")) as pool:
        with pytest.raises(NotSentError, match=r"could not be reached \(No such file"):
            await send("http://localhost/mcp", pool)
    listening.close()


# TLS.


def certificate(names, issuer=None):
    """Return a key and a certificate; self-signed without an issuer."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = dt.datetime.now(dt.UTC)
    signer, issued_by = issuer or (key, None)
    alternatives = [
        x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
        for name in names
    ]
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issued_by is None else issued_by.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA256())
    )
    return key, built


@pytest.fixture(scope="module")
def authority():
    return certificate(["ca.example"])


def contexts(tmp_path, authority, names):
    """Return the TLS contexts of a server with a certificate for *names* and of a client that trusts the authority."""
    key, issued = certificate(names, authority)
    pem = serialization.Encoding.PEM
    chain = tmp_path / "chain.pem"
    chain.write_bytes(
        issued.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(chain)
    trusting = ssl.create_default_context(cadata=authority[1].public_bytes(pem).decode())
    return serving, trusting


async def test_a_server_with_a_trusted_certificate_is_reached_over_tls(tmp_path, authority):
    serving, trusting = contexts(tmp_path, authority, ["localhost", "127.0.0.1"])
    named = []
    serving.sni_callback = lambda _socket, name, _context: named.append(name)
    async with raw_server(ssl=serving) as raw, ConnectionPool(context=trusting) as pool:
        raw.allow(3)
        for host in ("localhost", "localhost", "127.0.0.1"):
            assert await send(f"https://{host}:{raw.port}/mcp", pool) == b"{}"
        assert raw.accepted == 2
        assert named[0] == "localhost"


@pytest.mark.parametrize("names", [["other.example"], None])
async def test_a_server_with_another_certificate_is_sent_nothing(tmp_path, authority, names):
    serving, trusting = contexts(tmp_path, authority, names or ["localhost"])
    async with (
        raw_server(ssl=serving) as raw,
        ConnectionPool(1, context=trusting if names else None) as pool,
    ):
        with pytest.raises(NotSentError, match=r"could not be reached \(.*certificate verify failed"):
            await send(f"https://localhost:{raw.port}/mcp", pool)
        assert raw.requests == []
        assert pool._unused == 1


@pytest.mark.parametrize("name", ["localhost", "other.example"])
async def test_the_default_context_trusts_the_authorities_of_the_machine_and_checks_names(
    tmp_path, authority, monkeypatch, name
):
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(authority[1].public_bytes(serialization.Encoding.PEM))
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    pools._default_context.cache_clear()
    serving, _ = contexts(tmp_path, authority, [name])
    async with raw_server(ssl=serving) as raw, ConnectionPool(1) as pool:
        raw.allow()
        if name == "localhost":
            assert await send(f"https://localhost:{raw.port}/mcp", pool) == b"{}"
        else:
            with pytest.raises(NotSentError, match="certificate verify failed"):
                await send(f"https://localhost:{raw.port}/mcp", pool)
    pools._default_context.cache_clear()


async def test_a_server_that_speaks_no_tls_is_sent_nothing(pool):
    async with raw_server() as raw:
        raw.allow()

        async def refuse(reader, writer):
            await reader.read(1)
            writer.write(OK)
            writer.close()

        listening = await asyncio.start_server(refuse, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(NotSentError, match="could not be reached"):
            await send(f"https://127.0.0.1:{port}/", pool)
        listening.close()
    assert pool._unused == 1
