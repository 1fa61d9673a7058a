"""The heads and chunks of responses."""

import pytest

from gateway.fronts import responses


@pytest.mark.parametrize("header", [("X", "a\r\nSet-Cookie: b"), ("X\n", "a"), ("X", "a\0"), ("X", "a\r")])
def test_a_header_with_a_line_break_is_not_written(header):
    with pytest.raises(ValueError, match="line break"):
        responses.build_whole(200, dict([header]), b"", close=False)


def test_a_head_has_its_status_its_headers_and_its_date():
    start, *lines = (
        responses.build_whole(429, {"Retry-After": "1"}, b"wait!", close=True).decode().split("\r\n")
    )
    assert start == "HTTP/1.1 429 Too Many Requests"
    assert [line for line in lines if not line.startswith("Date: ")] == [
        "Retry-After: 1", "Connection: close", "Content-Length: 5", "", "wait!",
    ]  # fmt: skip


def test_an_unknown_status_has_no_phrase():
    assert responses.build_whole(299, {}, b"", close=False).startswith(b"HTTP/1.1 299 \r\n")


def test_a_date_is_in_the_format_of_http():
    assert responses._format_date(784111777) == "Sun, 06 Nov 1994 08:49:37 GMT"


def test_a_body_is_framed_by_its_length_or_in_chunks():
    assert b"\r\nContent-Length: 0\r\n\r\n" in responses.build_whole(200, {}, b"", close=False)
    assert responses.build_chunked(200, {}, close=False).endswith(b"\r\nTransfer-Encoding: chunked\r\n\r\n")


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_never_have_a_body(status):
    assert b"Content-Length" not in (head := responses.build_whole(status, {}, b"dropped", close=False))
    assert head.endswith(b" GMT\r\n\r\n")


def test_no_data_makes_no_chunk():
    assert responses.build_chunk(b"") == b""
    assert responses.build_chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
