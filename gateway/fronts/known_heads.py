"""Caches plain request heads with the results of their checks, so that a repeated head is not parsed again."""

from typing import TypeVar

from gateway.auth.agents import Agent, Agents
from gateway.call.request import RequestHead
from gateway.fronts import header_checks, plain_head
from gateway.fronts.plain_head import PlainHead
from gateway.upstreams.reply import Reply

#: The most heads that are kept, and the longest one, in bytes.
MAX_KEPT, MAX_KEPT_HEAD = 512, 4 << 10
_Value = TypeVar("_Value")


class KnownHead:
    """A plain head, the refusals that follow from it, and the agent whose token it has."""

    __slots__ = (
        "agent", "agents", "content_refusal", "head", "host_refusal", "is_subscription", "keep_alive", "key", "probe",
        "server", "verb",
    )  # fmt: skip

    def __init__(self, key: bytes, plain: PlainHead, hosts: frozenset[str]) -> None:
        #: The bytes of the head, without its Content-Length line.
        self.key = key
        self.verb, self.server, self.probe = plain.verb, plain.server, plain.probe
        self.head: RequestHead = plain.head
        self.keep_alive = plain.keep_alive
        self.is_subscription = plain.is_subscription
        self.host_refusal: Reply | None = header_checks.check_host(plain.head.pairs, hosts)
        self.content_refusal: Reply | None = header_checks.check_content(plain.verb, plain.head.pairs)
        #: The agent, valid as long as *agents* is the current object.
        self.agent: Agent | None = None
        self.agents: Agents | None = None


class KnownHeads:
    """The heads of accepted requests, by their bytes. The oldest is dropped first."""

    def __init__(self, hosts: frozenset[str]) -> None:
        self._hosts = hosts
        #: By the bytes without the Content-Length line, which differs from call to call.
        self._kept: dict[bytes, KnownHead] = {}
        #: By all bytes, with the length of the body.
        self._whole: dict[bytes, tuple[KnownHead, int]] = {}

    def __len__(self) -> int:
        return max(len(self._kept), len(self._whole))

    def read(self, received: bytes) -> tuple[KnownHead, int] | None:
        """Return a whole head and the length of its body; None if it is not plain."""
        return self._whole.get(received) or self._read(received)

    def _read(self, received: bytes) -> tuple[KnownHead, int] | None:
        key, length = plain_head.split_length(received)
        kept = self._kept.get(key)
        known = kept or self._parse(key)
        if known is None or not plain_head.has_plain_length(known.verb, length):
            return None
        found = known, length or 0
        if kept is not None:
            _put(self._whole, received, found)
        return found

    def _parse(self, key: bytes) -> KnownHead | None:
        plain = plain_head.parse_head(key)
        return None if plain is None else KnownHead(key, plain, self._hosts)

    def keep(self, known: KnownHead) -> None:
        """Keep the head of an accepted request. The heads of refused requests must not displace it, so they are not kept."""
        _put(self._kept, known.key, known)


def _put(heads: dict[bytes, _Value], key: bytes, value: _Value) -> None:
    """Keep one more head, and drop the oldest beyond the limit."""
    if len(key) > MAX_KEPT_HEAD:
        return
    heads[key] = value
    if len(heads) > MAX_KEPT:
        del heads[next(iter(heads))]
