"""The heads of requests, and the URLs that they come from."""

import base64

import pytest

from gateway.errors import NotSentError
from gateway.upstreams.http1.address import parse_address
from gateway.upstreams.http1.request_head import HeadBuilder

DEFAULTS = {"content-type": "application/json", "accept": "application/json"}


def build(headers=None, *, verb="POST", url="http://h/mcp", own=None, length=2):
    return HeadBuilder(verb, parse_address(url), DEFAULTS, own or {}).build(headers or {}, length).decode()


def lines(head: str) -> list[str]:
    first, *headers = head.removesuffix("\r\n\r\n").split("\r\n")
    return [first, *sorted(headers)]


def test_a_head_has_the_defaults_the_headers_and_the_length():
    assert lines(build({"Mcp-Session-Id": "s"}, own={"Authorization": "Bearer ours"})) == [
        "POST /mcp HTTP/1.1",
        "accept-encoding: identity",
        "accept: application/json",
        "authorization: Bearer ours",
        "content-length: 2",
        "content-type: application/json",
        "host: h",
        "mcp-session-id: s",
    ]


@pytest.mark.parametrize(
    ("verb", "length", "expected"), [("POST", 0, ["content-length: 0"]), ("GET", 0, []), ("DELETE", 0, [])]
)
def test_only_a_post_has_a_length_without_a_body(verb, length, expected):
    assert [line for line in lines(build(verb=verb, length=length)) if "length" in line] == expected


def test_credentials_win_over_headers_and_headers_over_defaults():
    head = build(
        {
            "Accept": "text/plain",
            "AUTHORIZATION": "theirs",
            "Content-Length": "9",
            "Transfer-Encoding": "chunked",
        },
        own={"Authorization": "ours", "Content-Type": "x/y"},
    )
    assert lines(head) == [
        "POST /mcp HTTP/1.1",
        "accept-encoding: identity",
        "accept: text/plain",
        "authorization: ours",
        "content-length: 2",
        "content-type: x/y",
        "host: h",
    ]


def test_the_later_of_two_spellings_of_a_header_is_sent():
    assert "mcp-session-id: b\r\n" in build({"Mcp-Session-Id": "a", "mcp-session-id": "b"})
    assert build({"Mcp-Session-Id": "a", "mcp-session-id": "b"}).lower().count("mcp-session-id") == 1


@pytest.mark.parametrize("bad", ["a\r\nX: y", "a\nX: y", "a\rb", "a\0b", "\r\n", "\ud800"])
@pytest.mark.parametrize("where", ["value", "name", "override"])
def test_a_header_that_would_break_the_head_is_not_sent(bad, where):
    headers = {"value": {"x": bad}, "name": {bad: "x"}, "override": {"accept": bad}}[where]
    with pytest.raises(NotSentError):
        build(headers)
    with pytest.raises(NotSentError):
        build(own=headers)


@pytest.mark.parametrize("name", ["", "a b", "a:", "content-length ", "\tx", "ä", "(x)"])
def test_a_header_name_that_is_not_a_token_is_not_sent(name):
    with pytest.raises(NotSentError, match="name of a header"):
        build({name: "x"})


def test_a_value_is_sent_as_utf_8():
    head = HeadBuilder("POST", parse_address("http://h/"), {}, {}).build({"x": "ä"}, 0)
    assert b"x: \xc3\xa4\r\n" in head


ADDRESSES = {
    "http://h": ("h", 80, "/", "h"),
    "HTTP://H:80/": ("h", 80, "/", "h"),
    "https://h/mcp?a=b&c#d": ("h", 443, "/mcp?a=b&c", "h"),
    "https://h:8443/mcp": ("h", 8443, "/mcp", "h:8443"),
    "http://h:443/": ("h", 443, "/", "h:443"),
    "http://[::1]:8808/mcp": ("::1", 8808, "/mcp", "[::1]:8808"),
    "http://[fe80::1%eth0]/": ("fe80::1%eth0", 80, "/", "[fe80::1]"),
    "http://münchen.example/ü/%C3%BC?ü": ("xn--mnchen-3ya.example", 80, "/%C3%BC/%C3%BC?%C3%BC", "xn--mnchen-3ya.example"),
    'http://h/a b"<>': ("h", 80, "/a%20b%22%3C%3E", "h"),
    "http://h/a\tb\r\nX: y": ("h", 80, "/abX:%20y", "h"),
}  # fmt: skip


@pytest.mark.parametrize("url", ADDRESSES)
def test_a_url_has_a_host_a_port_and_a_target(url):
    address = parse_address(url)
    assert (address.host, address.port, address.target, address.host_header) == ADDRESSES[url]


@pytest.mark.parametrize(
    "url",
    ["ftp://h/", "h/mcp", "http://", "http:///mcp", "http://h:99999/", "http://h:x/", "http://[/", "http://a b/", "http://a\\b/",
     "http://[g::1]/", "http://h\u2100/", "http://" + "ü" * 70 + "/", ""],
)  # fmt: skip
def test_other_urls_are_refused(url):
    with pytest.raises(ValueError):
        parse_address(url)


def test_a_user_in_the_url_is_sent_as_basic_credentials_unless_there_are_others():
    url = "http://us%C3%A9r:p%40ss@h/mcp"
    pair = base64.b64encode("usér:p@ss".encode()).decode()
    assert f"authorization: Basic {pair}\r\n" in build(url=url)
    assert (
        "us" not in build(url=url).partition("authorization")[0].partition("host")[2].partition("accept")[0]
    )
    assert pair not in repr(parse_address(url))
    head = build(url=url, own={"Authorization": "Bearer ours"})
    assert head.count("authorization") == 1
    assert "authorization: Bearer ours\r\n" in head
