"""Plain request heads with the result of their checks, kept so that a repeated head is not parsed again."""

from gateway.auth.agents import Agent, Agents
from gateway.call.request import RequestHead
from gateway.fronts import checks, head
from gateway.fronts.head import PlainHead
from gateway.upstreams.reply import Reply

#: The most heads that are kept, and the longest of them in bytes.
MAX_KEPT, MAX_KEPT_HEAD = 512, 4 << 10


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
        self.host_refusal: Reply | None = checks.check_host(plain.head.pairs, hosts)
        self.content_refusal: Reply | None = checks.check_content(plain.verb, plain.head.pairs)
        #: The agent, valid as long as *agents* is the current object.
        self.agent: Agent | None = None
        self.agents: Agents | None = None


class KnownHeads:
    """The heads of accepted requests, by their bytes. The oldest is dropped first."""

    def __init__(self, hosts: frozenset[str]) -> None:
        self._hosts = hosts
        self._kept: dict[bytes, KnownHead] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def read(self, received: bytes) -> tuple[KnownHead, int] | None:
        """Return a whole head and the length of its body; None if it is not plain."""
        key, length = head.split_length(received)
        known = self._kept.get(key)
        if known is None:
            plain = head.parse_head(key)
            if plain is None:
                return None
            known = KnownHead(key, plain, self._hosts)
        return (known, length or 0) if head.has_plain_length(known.verb, length) else None

    def keep(self, known: KnownHead) -> None:
        """Keep the head of an accepted request. Those of refused ones are not kept, so that they displace none."""
        if len(known.key) > MAX_KEPT_HEAD:
            return
        self._kept[known.key] = known
        if len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]
