"""The grammar of a plain request head (PURE).

It is a strict subset of RFC 9112, in which every parser reads the same request. Any other head is left to aiohttp.
"""

import re
from dataclasses import dataclass

from gateway.call.request import RequestHead
from gateway.wire import protocol

#: The end of a head.
END = b"\r\n\r\n"
#: The longest plain head, and the longest line in it, in bytes. aiohttp refuses lines of more than 8,190 bytes.
MAX_HEAD, MAX_LINE = 16 << 10, 8000
#: The most headers of a plain head; aiohttp accepts 128.
MAX_HEADERS = 100
#: Headers that change how the message is framed, decoded or answered. llhttp reads Proxy-Connection as Connection.
_FRAMING = frozenset({
    "content-encoding", "content-length", "expect", "proxy-connection", "sec-websocket-key1", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip
_KEEP_ALIVE = {"keep-alive": True, "close": False}
_HEAD = re.compile(
    rb"(POST|GET|DELETE) /(?:mcp/([A-Za-z0-9][A-Za-z0-9_.~-]*)|(healthz|readyz)) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: *[\x21-\x7e][\x20-\x7e]*\r\n)+)\r\n"
)
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: *(0|[1-9][0-9]{0,7}) *(?=\r\n)")
#: The first bytes of every plain head, and the lines of one that has arrived in part.
_BEGINNINGS = (b"POST /mcp/", b"GET /mcp/", b"DELETE /mcp/", b"GET /healthz ", b"GET /readyz ")
_LINES = re.compile(rb"(?:[\x20-\x7e]+\r\n)*(?:[\x20-\x7e]+\r?|\r)?")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PlainHead:
    """A plain request head, without its Content-Length. It may contain a token, so its `repr` is the default one."""

    verb: str
    #: The server in the path; "" for a probe.
    server: str
    #: "healthz", "readyz" or "".
    probe: str
    head: RequestHead
    keep_alive: bool
    #: Whether the request opens a stream that never ends.
    is_subscription: bool


def split_length(head: bytes) -> tuple[bytes, int | None]:
    """Return a head without its Content-Length line, and the length; None if it has no such plain line."""
    found = _LENGTH.search(head)
    return (head, None) if found is None else (head[: found.start()] + head[found.end() :], int(found[1]))


def parse_head(head: bytes) -> PlainHead | None:
    """Parse a whole head without its Content-Length line; None if it is not plain."""
    match = _HEAD.fullmatch(head) if len(head) <= MAX_HEAD else None
    if match is None:
        return None
    verb, server, probe, lines = (str(part or b"", "ascii") for part in match.groups())
    pairs = tuple(_split_line(line) for line in lines[:-2].split("\r\n"))
    headers = dict(pairs)
    keep_alive = _KEEP_ALIVE.get(headers.get("connection", "keep-alive").lower())
    if keep_alive is None or not _are_plain(pairs, headers) or (probe and verb != "GET"):
        return None
    return PlainHead(
        verb=verb, server=server, probe=probe, head=RequestHead(pairs), keep_alive=keep_alive,
        is_subscription=protocol.is_subscription(verb, headers),
    )  # fmt: skip


def has_plain_length(verb: str, length: int | None) -> bool:
    """Return whether the length suits the method: a POST has a body, and no other method has one."""
    return length is not None if verb == "POST" else not length


def may_be_plain(beginning: bytes) -> bool:
    """Return whether the incomplete head *beginning* may still turn out to be plain."""
    starts = any(beginning.startswith(known[: len(beginning)]) for known in _BEGINNINGS)
    return starts and len(beginning) <= MAX_HEAD and _LINES.fullmatch(beginning) is not None


def _split_line(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.lower(), value.strip(" ")


def _are_plain(pairs: tuple[tuple[str, str], ...], headers: dict[str, str]) -> bool:
    """Return whether Host is present, no header is repeated, and none changes the framing."""
    return (
        len(headers) == len(pairs) <= MAX_HEADERS
        and "host" in headers
        and _FRAMING.isdisjoint(headers)
        and all(len(name) + len(value) < MAX_LINE for name, value in pairs)
    )
