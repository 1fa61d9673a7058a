"""The address of a client behind reverse proxies (RFC 7239, and X-Forwarded-For) (PURE)."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from multidict import MultiMapping

Address = IPv4Address | IPv6Address
#: How a Unix socket is written among the trusted proxies, as in nginx's set_real_ip_from.
UNIX = "unix:"
#: The name of a peer that has no address.
LOCAL = "a local socket"
#: One element of a list whose quoted strings may hold commas (RFC 9110, 5.6.1).
_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*"?([^";]*)', re.IGNORECASE)
#: 192.0.2.1:80, [2001:db8::1] and [2001:db8::1]:80 hold an address; so does 2001:db8::1 as it is.
_WITH_PORT = re.compile(r"(\d+\.\d+\.\d+\.\d+):\d+|\[([^\]]*)\](?::\d+)?")


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The reverse proxies whose word on a client's address is believed."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    unix: bool = False

    @classmethod
    def parse(cls, written: Iterable[str]) -> "TrustedProxies":
        """Read addresses, networks and `unix:`; raises `ValueError` for anything else."""
        places = set(written)
        networks = tuple(ip_network(one, strict=False) for one in places - {UNIX})
        return cls(networks, unix=UNIX in places)

    def client(self, peer: str | None, headers: MultiMapping[str]) -> str:
        """Return the address that a request came from: the rightmost one that is no trusted proxy's.

        A proxy writes one of the two headers and may pass on the other as the client sent it. When they differ, the
        proxy's own address is returned.
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


#: No proxy is believed.
NO_PROXIES = TrustedProxies()


def _split(value: str) -> Iterator[str]:
    return (hop.strip() for hop in value.split(","))


def _forwarded(value: str) -> Iterator[str]:
    for element in _ELEMENT.findall(value):
        match = _FOR.search(element)
        yield match[1].strip() if match else ""


_HEADERS = {"Forwarded": _forwarded, "X-Forwarded-For": _split}


def _address(node: str) -> Address | None:
    """Return the address of a node without its port; None for a name, "unknown" or nothing."""
    match = _WITH_PORT.fullmatch(node)
    try:
        address = ip_address(match[1] or match[2] if match else node)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
