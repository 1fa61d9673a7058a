"""The client's address behind reverse proxies."""

import pytest
from multidict import CIMultiDict

from approvals.client_address import LOCAL, TrustedProxies
from rows import each_row

PROXIES = TrustedProxies.parse(["10.0.0.0/8", "2001:db8::1"])


def client(peer, *, forwarded=(), x=(), proxies=PROXIES):
    headers = [("Forwarded", value) for value in forwarded] + [("X-Forwarded-For", value) for value in x]
    return proxies.find_client(peer, CIMultiDict(headers))


@each_row(
    ("peer", "x", "found"),
    [
        ("10.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ["192.0.2.1, 10.0.0.2"], "192.0.2.1"),
        ("10.0.0.1", ["192.0.2.66, 192.0.2.1, 10.0.0.2"], "192.0.2.1"),
        ("10.0.0.1", ["192.0.2.66", "192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ["192.0.2.1:4711"], "192.0.2.1"),
        ("10.0.0.1", ["[2001:db8::9]:4711"], "2001:db8::9"),
        ("10.0.0.1", ["2001:db8::9"], "2001:db8::9"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("2001:db8::1", ["::ffff:192.0.2.1"], "192.0.2.1"),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_not_a_proxy(peer, x, found):
    assert client(peer, x=x) == found


@each_row(
    ("forwarded", "found"),
    [
        (["for=192.0.2.1"], "192.0.2.1"),
        (["for=192.0.2.66, For=192.0.2.1;proto=https;by=10.0.0.2"], "192.0.2.1"),
        (['proto=http; for="[2001:db8:cafe::17]:4711"'], "2001:db8:cafe::17"),
        (['for="192.0.2.1";host="a,b;for=1.1.1.1", for=10.0.0.2'], "192.0.2.1"),
        (["for=192.0.2.1, for=_hidden"], "10.0.0.1"),
        (["for=192.0.2.1, proto=https"], "10.0.0.1"),
        (['for="192.0.2.1'], "10.0.0.1"),
    ],
)
def test_the_forwarded_header_is_parsed(forwarded, found):
    assert client("10.0.0.1", forwarded=forwarded) == found


@pytest.mark.parametrize("peer", ["192.0.2.9", "::1", "11.0.0.1"])
def test_headers_from_an_untrusted_peer_are_ignored(peer):
    assert client(peer, x=["192.0.2.1"], forwarded=["for=192.0.2.1"]) == peer
    assert client(peer, x=["192.0.2.1"], proxies=TrustedProxies()) == peer


def test_conflicting_headers_are_ignored():
    assert client("10.0.0.1", x=["192.0.2.1"], forwarded=["for=192.0.2.1"]) == "192.0.2.1"
    assert client("10.0.0.1", x=["192.0.2.1"], forwarded=["for=192.0.2.66"]) == "10.0.0.1"


@pytest.mark.parametrize("peer", ["", None])
def test_a_unix_socket_is_trusted_when_listed(peer):
    assert client(peer, x=["192.0.2.1"]) == LOCAL
    assert client(peer, x=["192.0.2.1"], proxies=TrustedProxies.parse(["unix:"])) == "192.0.2.1"
    assert client(peer, proxies=TrustedProxies.parse(["unix:"])) == LOCAL
