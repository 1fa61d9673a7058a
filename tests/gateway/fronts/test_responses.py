"""The heads and chunks of responses."""

import pytest

from gateway.fronts import responses


@pytest.mark.parametrize("header", [("X", "a\r\nSet-Cookie: b"), ("X\n", "a"), ("X", "a\0"), ("X", "a\r")])
def test_a_header_with_a_line_break_is_not_written(header):
    with pytest.raises(ValueError, match="line break"):
        responses.build_head(200, dict([header]), 0, close=False)


def test_a_head_has_its_status_its_headers_and_its_date():
    start, *lines = responses.build_head(429, {"Retry-After": "1"}, 5, close=True).decode().split("\r\n")
    assert start == "HTTP/1.1 429 Too Many Requests"
    assert [line for line in lines if not line.startswith("Date: ")] == [
        "Retry-After: 1", "Connection: close", "Content-Length: 5", "", "",
    ]  # fmt: skip


def test_an_unknown_status_has_no_phrase():
    assert responses.build_head(299, {}, 0, close=False).startswith(b"HTTP/1.1 299 \r\n")


def test_a_date_is_in_the_format_of_http():
    assert responses._date(784111777) == b"Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("length", "framing"), [(None, b"Transfer-Encoding: chunked"), (0, b"Content-Length: 0")]
)
def test_a_body_is_framed_by_its_length_or_in_chunks(length, framing):
    assert framing in responses.build_head(200, {}, length, close=False)
    assert framing not in responses.build_head(204, {}, length, close=False)


def test_no_data_makes_no_chunk():
    assert responses.build_chunk(b"") == b""
    assert responses.build_chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
