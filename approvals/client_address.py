"""Finds a client's address behind trusted reverse proxies, from Forwarded (RFC 7239) or X-Forwarded-For (PURE)."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from multidict import MultiMapping

Address = IPv4Address | IPv6Address
#: Stands for a Unix socket in a list of trusted proxies, as in nginx's set_real_ip_from.
UNIX = "unix:"
#: Shown as the address of a peer on a Unix socket.
LOCAL = "a local socket"
#: One list element; quoted strings may contain commas (RFC 9110, section 5.6.1).
_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*"?([^";]*)', re.IGNORECASE)
#: 192.0.2.1:80, [2001:db8::1] and [2001:db8::1]:80. A bare 2001:db8::1 has no port to remove.
_WITH_PORT = re.compile(r"(\d+\.\d+\.\d+\.\d+):\d+|\[([^\]]*)\](?::\d+)?")


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """Reverse proxies whose forwarding headers are trusted."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    unix: bool = False

    @classmethod
    def parse(cls, written: Iterable[str]) -> "TrustedProxies":
        """Parse addresses, networks and `unix:`. Raises `ValueError` for anything else."""
        places = set(written)
        networks = tuple(ip_network(one, strict=False) for one in places - {UNIX})
        return cls(networks, unix=UNIX in places)

    def find_client(self, peer: str | None, headers: MultiMapping[str]) -> str:
        """Return the client's address: the rightmost hop that is not a trusted proxy.

        A proxy writes one of the two headers and may forward the other as the client sent it. If they disagree, return
        the address of the proxy itself.
        """
        nearest = _address(peer or "")
        trusted = self.unix if nearest is None else self._trusts(nearest)
        if not trusted:
            return str(nearest or LOCAL)
        given = [(headers.getall(name, []), hops) for name, hops in _HEADERS.items()]
        found = {self._rightmost(hops(",".join(values)), nearest) for values, hops in given if values}
        return str((found.pop() if len(found) == 1 else nearest) or LOCAL)

    def _rightmost(self, hops: Iterable[str], nearest: Address | None) -> Address | None:
        for hop in reversed([*hops]):
            address = _address(hop)
            if address is None:
                return nearest
            nearest = address
            if not self._trusts(address):
                return address
        return nearest

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self.networks)


#: Trusts no proxy.
NO_PROXIES = TrustedProxies()


def _split(value: str) -> Iterator[str]:
    return (hop.strip() for hop in value.split(","))


def _forwarded(value: str) -> Iterator[str]:
    for element in _ELEMENT.findall(value):
        match = _FOR.search(element)
        yield match[1].strip() if match else ""


_HEADERS = {"Forwarded": _forwarded, "X-Forwarded-For": _split}


def _address(node: str) -> Address | None:
    """Return a node's address without its port; None for a name, "unknown" or an empty node."""
    match = _WITH_PORT.fullmatch(node)
    try:
        address = ip_address(match[1] or match[2] if match else node)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
