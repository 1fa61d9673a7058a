"""Writes the heads and chunks of HTTP/1.1 responses (RFC 9112)."""

import re
import time
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus

#: Statuses of responses that never have a body (RFC 9110, 6.4.1).
BODILESS = frozenset({204, 304})
LAST_CHUNK = b"0\r\n\r\n"
#: A name or value that would end its line early.
_UNSAFE = re.compile(r"[\r\n\0]")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def build_whole(status: int, headers: Mapping[str, str], body: bytes, *, close: bool) -> bytes:
    """Build a response with its whole body. Raises `ValueError` for a header that contains a line break."""
    start = _build_start(status, tuple(headers.items()), close, int(time.time()))
    if status in BODILESS:
        return start + b"\r\n"
    return b"%bContent-Length: %d\r\n\r\n%b" % (start, len(body), body)


def build_chunked(status: int, headers: Mapping[str, str], *, close: bool) -> bytes:
    """Build the head of a response with a chunked body. Raises `ValueError` as `build_whole` does."""
    start = _build_start(status, tuple(headers.items()), close, int(time.time()))
    return start + b"Transfer-Encoding: chunked\r\n\r\n"


def build_chunk(data: bytes) -> bytes:
    """Build one chunk; b"" for no data, since an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


@lru_cache(maxsize=256)
def _build_start(status: int, headers: tuple[tuple[str, str], ...], close: bool, second: int) -> bytes:
    """Build a head up to the line that frames the body. Answers of one second share it."""
    lines = [f"HTTP/1.1 {status} {_phrase(status)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if any(_UNSAFE.search(line) for line in lines):
        raise ValueError("A response header contains a line break.")
    lines.append(f"Date: {_format_date(second)}")
    if close:
        lines.append("Connection: close")
    return "".join(f"{line}\r\n" for line in lines).encode("utf-8", "surrogateescape")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _format_date(second: int) -> str:
    """Return a time in the format of RFC 9110, 5.6.7, whatever the locale."""
    at = time.gmtime(second)
    day, month = _DAYS[at.tm_wday], _MONTHS[at.tm_mon - 1]
    clock = f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"
    return f"{day}, {at.tm_mday:02} {month} {at.tm_year} {clock} GMT"
