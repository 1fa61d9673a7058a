"""Reads the heads of responses and finds the ends of their bodies."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import httptools

from gateway.errors import ConnectionLostError
from gateway.upstreams.reply import EVENTS, media_type

END_OF_HEAD = b"\r\n\r\n"
#: The longest line of a head, and the longest head, in bytes.
MAX_LINE = 16 << 10
MAX_HEAD = 64 << 10
#: The longest head that is cached. A server repeats its heads: only Date changes, once a second.
_MAX_CACHED = 2 << 10
_CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class MalformedResponseError(ConnectionLostError):
    """The server's answer is not valid HTTP. The request may have been executed."""


class CompressedResponseError(ConnectionLostError):
    """The server compressed its answer, although the gateway asked it not to. The request may have been executed."""


class Framing(Protocol):
    """The rule by which a body ends (RFC 9112, section 6.3)."""

    #: Whether the body is complete, and whether bytes followed it.
    done: bool
    excess: bool

    def feed(self, data: bytes) -> bytes:
        """Return the bytes of the body in *data*; raises `MalformedResponseError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHead:
    """Status, headers and framing of a response."""

    status: int
    #: By lower-case name; of a repeated header, the first.
    headers: Mapping[str, str]
    #: The length of the body in bytes; None if it is chunked or ends with the connection.
    length: int | None
    chunked: bool
    #: Whether the body is a stream of events.
    streams: bool
    keep_alive: bool

    def framing(self) -> Framing:
        """Return the framing of a body."""
        if self.length is not None:
            return Counted(self.length)
        return Chunked() if self.chunked else UntilClose()


class Counted:
    """A body of a known length."""

    __slots__ = ("_left", "done", "excess")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0
        self.excess = False

    def feed(self, data: bytes) -> bytes:
        """See `Framing.feed`."""
        body = data if len(data) <= self._left else data[: self._left]
        self._left -= len(body)
        self.done = self._left == 0
        self.excess = len(body) < len(data)
        return body


def _refuse(_: bytes) -> None:
    """Refuse data after the end of a body."""
    raise MalformedResponseError


class Chunked:
    """A chunked body (RFC 9112, section 7.1). Chunk extensions and trailers are ignored."""

    def __init__(self) -> None:
        self.done = self.excess = False
        self._parts: list[bytes] = []
        self._parse: Callable[[bytes], None] = httptools.HttpResponseParser(self).feed_data
        self._parse(_CHUNKED_HEAD)

    def feed(self, data: bytes) -> bytes:
        """See `Framing.feed`."""
        try:
            self._parse(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.done:
                raise MalformedResponseError from error
        if self.done:
            self._parse = _refuse  # the parser refers back to this object
        body = b"".join(self._parts)
        self._parts.clear()
        return body

    def on_body(self, data: bytes) -> None:
        """Keep a part of the body."""
        self._parts.append(data)

    def on_message_begin(self) -> None:
        """Note that another message follows."""
        self.excess = self.done

    def on_message_complete(self) -> None:
        """Note the last chunk."""
        self.done = True


class UntilClose:
    """A body that ends with the connection."""

    __slots__ = ("done", "excess")

    def __init__(self) -> None:
        self.done = self.excess = False

    def feed(self, data: bytes) -> bytes:
        """See `Framing.feed`."""
        return data


def read_head(raw: bytes) -> ResponseHead:
    """Parse a head with its empty line; raises `MalformedResponseError` or `CompressedResponseError`."""
    return _read_cached(raw) if len(raw) <= _MAX_CACHED else _read(raw)


def check_size(head: bytes) -> None:
    """Raise `MalformedResponseError` if a head, or the part of it that arrived, is too long."""
    if len(head) > MAX_HEAD or (len(head) > MAX_LINE and max(map(len, head.split(b"\r\n"))) > MAX_LINE):
        raise MalformedResponseError


def _read(raw: bytes) -> ResponseHead:
    check_size(raw)
    reader = _HeadReader()
    reader.read(raw)
    status, headers = reader.status, reader.headers
    chunked = "transfer-encoding" in headers
    if chunked and headers["transfer-encoding"].lower() != "chunked":
        raise MalformedResponseError
    if headers.get("content-encoding", "identity").lower() not in {"", "identity"}:
        raise CompressedResponseError
    length = int(headers["content-length"]) if "content-length" in headers else None
    if status < 200 or status in {204, 304}:  # no body, whatever the headers say (RFC 9112, section 6.3)
        length = 0
    return ResponseHead(
        status=status, headers=headers, length=length, chunked=chunked,
        streams=media_type(headers.get("content-type", "")) == EVENTS, keep_alive=reader.keep_alive,
    )  # fmt: skip


_read_cached = lru_cache(maxsize=256)(_read)


class _HeadReader:
    """Collects the parts of one head from the parser."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.keep_alive = False
        self._parser = httptools.HttpResponseParser(self)

    def read(self, raw: bytes) -> None:
        """Parse *raw*, which must be one whole head; raises `MalformedResponseError`."""
        try:
            self._parser.feed_data(raw)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise MalformedResponseError from error
        finally:
            del self._parser  # it refers back to this object
        if not self.status:
            raise MalformedResponseError

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; of several with one name, the first."""
        lowered = name.decode("ascii").lower()
        if lowered == "transfer-encoding" and lowered in self.headers:
            raise MalformedResponseError
        self.headers.setdefault(lowered, value.strip(b" \t").decode("utf-8", "surrogateescape"))

    def on_headers_complete(self) -> None:
        """Keep the status, and whether the connection may be used again."""
        self.status = self._parser.get_status_code()
        self.keep_alive = self._parser.should_keep_alive()
