"""Keeps the tools of each server, with hash, classification and pin; lists them when first needed."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from approvals.digest import sha256
from gateway.errors import GatewayError
from gateway.tools import defects, discovery
from gateway.tools.classify.risk import RISKS, Category, Risk, ToolClassification, classify, classify_unlisted
from gateway.tools.classify.severity import Severity
from gateway.tools.pins import Pins, canonical_definition
from gateway.upstreams import Upstream
from gateway.wire.member_names import schema_members

#: Seconds for a server to list its tools, and seconds before the next request for the list.
LIST_TIMEOUT = 20.0
RETRY = 30.0
#: The error for a server that a reload changed while it was being listed.
SERVER_CHANGED = "The config changed this server in the meantime."
#: The tool name under which the server's own name is pinned; no tool can have it.
SERVER_PIN = ""
log = logging.getLogger("okayed.catalogue")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool of one server: its definition as listed, its classification and its pin."""

    name: str
    definition: Mapping[str, Any]
    #: SHA-256 of the definition; "" if the server does not list the tool.
    hash: str
    classification: ToolClassification
    #: The canonical definition, b"" if not listed; and the accepted definition if it differs, else b"".
    canonical: bytes = b""
    accepted: bytes = b""
    #: The defect that puts the tool in quarantine, or "".
    defect: str = ""
    #: The member names in its inputSchema, at any depth.
    member_names: frozenset[str] = frozenset()
    #: Whether its schema mirrors arguments in headers (2026-07-28, `x-mcp-header`).
    has_param_headers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """The operator's classification of a tool, which takes precedence over the classifier."""

    category: Category | None = None
    risk: Risk | None = None
    severity: Severity | None = None


#: Called with the server name and each tool whose definition is defective or differs from the accepted one.
ChangeListener = Callable[[str, Tool], None]


class Catalogue:
    """The tools of all servers, as last listed."""

    def __init__(self, clock: Callable[[], float], pins: Pins, on_change: ChangeListener) -> None:
        self._clock = clock
        self._pins = pins
        self._on_change = on_change
        self._upstreams: Mapping[str, Upstream] = {}
        self._overrides: Mapping[str, Mapping[str, Override]] = {}
        self._tools: dict[str, dict[str, Tool]] = {}
        self._reported: dict[tuple[str, str], str] = {}
        self._with_tasks: set[str] = set()
        #: Servers whose list is unknown or out of date.
        self._stale: set[str] = set()
        #: The number of list_changed notifications of each server.
        self._changes: Counter[str] = Counter()
        self._asked_at: dict[str, float] = {}
        #: The error of the last request to each server, or None.
        self._problems: dict[str, str | None] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def configure(
        self, upstreams: Mapping[str, Upstream], overrides: Mapping[str, Mapping[str, Override]]
    ) -> None:
        """Switch to these servers and overrides; reclassifies the tools of servers that it already knows."""
        self._upstreams, self._overrides = upstreams, overrides
        known = {
            server: [tool.definition for tool in tools.values()] for server, tools in self._tools.items()
        }
        self._tools = {}
        self._stale = (self._stale | (upstreams.keys() - known.keys())) & upstreams.keys()
        for server in known.keys() & upstreams.keys():
            self._store_list(server, known[server])

    def forget(self, server: str) -> None:
        """Forget the tools of a server that was removed or replaced; keeps its pins."""
        self._tools.pop(server, None)
        self._asked_at.pop(server, None)
        self._with_tasks.discard(server)

    async def find(self, server: str, name: str) -> Tool:
        """Return the tool; first lists the server's tools if the tool is unknown or the list is out of date."""
        if (known := self.find_at_once(server, name)) is not None:
            return known
        await self.refresh(server)
        return self.current_tool(server, name)

    def find_at_once(self, server: str, name: str) -> Tool | None:
        """Return the tool, or None if the server's tools have to be listed first."""
        return None if server in self._stale else self.listed_tool(server, name)

    async def ensure_listed(self, server: str) -> None:
        """List the server's tools, unless the last list is current."""
        if server in self._stale:
            await self.refresh(server)

    async def refresh_stale(self, *, only_asked: bool = False) -> None:
        """List each server whose list is missing or out of date; *only_asked* skips servers never listed before."""
        stale = self._stale & self._problems.keys() if only_asked else self._stale
        await asyncio.gather(*(self.refresh(server) for server in list(stale)))

    def listed_tool(self, server: str, name: str) -> Tool | None:
        """Return the tool as last listed, or None; it may be out of date."""
        tools = self._tools.get(server)
        return None if tools is None else tools.get(name)

    def current_tool(self, server: str, name: str) -> Tool:
        """Return the tool without a request to the server; unverified if the list is out of date."""
        if (current := self.find_at_once(server, name)) is not None:
            return current
        return self._as_unverified(
            server, self.listed_tool(server, name) or self._build_unlisted(server, name)
        )

    def has_output_schema(self, server: str, name: str) -> bool:
        """Return whether a tool has an outputSchema; true for an unknown tool, which may have one."""
        tool = self.listed_tool(server, name)
        return tool is None or "outputSchema" in tool.definition

    def listed_tools(self, server: str) -> Sequence[Tool]:
        """Return the tools that a server listed last, sorted by name."""
        return sorted(self._tools.get(server, {}).values(), key=lambda tool: tool.name)

    def has_tasks(self, server: str) -> bool:
        """Return whether a server has its own tasks; the gateway then does not offer tasks for its calls."""
        return server in self._with_tasks

    def mark_stale(self, server: str) -> None:
        """Mark a list as out of date, so that it is fetched before the next call."""
        self._changes[server] += 1
        self._asked_at.pop(server, None)
        self._stale.add(server)

    async def refresh(self, server: str) -> str | None:
        """List a server's tools; returns the error, or None.

        Concurrent callers share one request; later callers within `RETRY` seconds get its result.
        """
        async with self._locks.setdefault(server, asyncio.Lock()):
            if self._may_ask(server):
                self._asked_at[server] = self._clock()
                self._problems[server] = await self._try_fetch(server)
            return self._problems[server]

    async def _try_fetch(self, server: str) -> str | None:
        """List a server's tools and return the error, or None; a faulty server never raises."""
        try:
            return await self._fetch(server)
        except (GatewayError, TimeoutError) as error:
            why = _explain(error)
            log.warning("could not list the tools of %s: %s", server, why)
            return why
        except asyncio.CancelledError:
            # The caller disconnected, so there is no result: the next caller must send the request again.
            self._asked_at.pop(server, None)
            raise
        except Exception:
            log.exception("could not list the tools of %s", server)
            return "Its list of tools could not be read."

    async def _fetch(self, server: str) -> str | None:
        upstream, changes = self._upstreams.get(server), self._changes[server]
        if upstream is None:
            return SERVER_CHANGED
        async with asyncio.timeout(LIST_TIMEOUT):
            listing = await discovery.list_tools(upstream)
        if self._upstreams.get(server) is not upstream:
            return SERVER_CHANGED
        self._check_server_name(server, listing.name)
        self._store_list(server, listing.tools)
        self._with_tasks = (self._with_tasks - {server}) | ({server} if listing.tasks else set())
        if self._changes[server] == changes:  # else the list changed again meanwhile
            self._stale.discard(server)
        return None

    def _may_ask(self, server: str) -> bool:
        return self._clock() >= self._asked_at.get(server, -RETRY) + RETRY

    def _build_tools(self, server: str, definitions: Sequence[Mapping[str, Any]]) -> dict[str, Tool]:
        named = {name: tool for tool in definitions if isinstance(name := tool.get("name"), str)}
        duplicates = defects.find_duplicates(definitions)
        tools = {}
        for name, definition in named.items():
            tool = self._build_tool(server, definition, tuple(named))
            tools[name] = (
                replace(tool, defect="its server lists two tools with this name")
                if name in duplicates
                else tool
            )
        return tools

    def _check_server_name(self, server: str, name: str) -> None:
        """Warn if a different server now answers at this address."""
        canonical = canonical_definition({"name": name})
        pin = self._pins.find(server, SERVER_PIN)
        if pin is not None and pin.definition != canonical:
            log.warning("%s: the server now calls itself %r; check that it is the right one", server, name)
        if pin is None or pin.definition != canonical:
            self._pins.accept(server, SERVER_PIN, canonical)

    def _store_list(self, server: str, definitions: Sequence[Mapping[str, Any]]) -> None:
        """Store a list of tools, compare it with the pins, and report each change once."""
        found = {
            name: self._compare_with_pin(server, tool)
            for name, tool in self._build_tools(server, definitions).items()
        }
        self._tools[server] = found
        for name, tool in list(found.items()):
            if (tool.accepted or tool.defect) and self._reported.get((server, name)) != tool.hash:
                self._reported[server, name] = tool.hash
                self._on_change(server, tool)

    def _compare_with_pin(self, server: str, tool: Tool) -> Tool:
        """Compare a tool with its pin; accepts the first definition seen.

        A pin may be from another server that had this name. It is not trusted then: the same definition is pinned
        again, as on first use, and a different definition is a change.
        """
        pin = self._pins.find(server, tool.name)
        if pin is not None and pin.hash != tool.hash:
            return replace(tool, accepted=pin.definition)
        if self._pins.find_trusted(server, tool.name) is None and not tool.defect:
            self._pins.accept(server, tool.name, tool.canonical)
        return tool

    def accept(self, server: str, tool: Tool) -> None:
        """Accept the current definition of a tool."""
        self._pins.accept(server, tool.name, tool.canonical)
        self._tools[server][tool.name] = replace(tool, accepted=b"")

    def compare_with_pins(self, server: str) -> None:
        """Compare a server's tools with its pins, which another replica changed.

        A tool that now differs may have changed since this replica listed it, so the list is marked as out of date.
        """
        tools = self._tools.get(server, {})
        for name, tool in list(tools.items()):
            pin = self._pins.find(server, name)
            accepted = pin.definition if pin is not None and pin.hash != tool.hash else b""
            if accepted not in (b"", tool.accepted):
                self.mark_stale(server)
            tools[name] = replace(tool, accepted=accepted)

    def check_list(self, server: str, definitions: Sequence[Mapping[str, Any]]) -> None:
        """Mark the list as out of date if a relayed tools/list result differs from it."""
        known = self._tools.get(server, {})
        for definition in definitions:
            tool = known.get(str(definition.get("name")))
            # A tool listed for one agent only must not cause a request each time.
            differs = (
                self._may_ask(server) if tool is None else tool.canonical != canonical_definition(definition)
            )
            if differs:
                self.mark_stale(server)
                return

    def _as_unverified(self, server: str, tool: Tool) -> Tool:
        """Return the tool as unverified: its current definition is unknown."""
        pin = self._pins.find(server, tool.name)
        return replace(tool, hash="", canonical=b"", accepted=pin.definition if pin else b"")

    def _build_unlisted(self, server: str, name: str) -> Tool:
        """Build an unlisted tool from its accepted definition, or from its name."""
        if (pin := self._pins.find_trusted(server, name)) is not None:
            return self._build_tool(
                server, msgspec.json.decode(pin.definition), tuple(self._tools.get(server, {}))
            )
        found = classify_unlisted(name, self._tools.get(server, {}))
        return Tool(
            name=name,
            definition={"name": name},
            hash="",
            classification=self._apply_override(server, name, found),
        )

    def _build_tool(self, server: str, definition: Mapping[str, Any], siblings: tuple[str, ...]) -> Tool:
        name = str(definition["name"])
        canonical = canonical_definition(definition)
        return Tool(
            name=name,
            definition=definition,
            hash=sha256(canonical),
            canonical=canonical,
            defect=defects.find_defect(definition, canonical),
            member_names=frozenset(schema_members(definition.get("inputSchema"))),
            has_param_headers=b'"x-mcp-header"' in canonical,
            classification=self._apply_override(server, name, classify(definition, siblings)),
        )

    def _apply_override(
        self, server: str, name: str, classification: ToolClassification
    ) -> ToolClassification:
        """Apply the operator's override, if there is one."""
        override = self._overrides.get(server, {}).get(name)
        return classification if override is None else apply_override(classification, override)


def apply_override(classification: ToolClassification, override: Override) -> ToolClassification:
    """Apply the operator's override; an overridden category sets the risk class, unless that is overridden too."""
    category = override.category or classification.category
    risk = RISKS[category] if override.category else classification.risk
    return replace(
        classification,
        category=category,
        risk=override.risk or risk,
        severity=override.severity or classification.severity,
        confidence=1.0,
        evidence=("Set in the operator's config.", *classification.evidence),
    )


def _explain(error: GatewayError | TimeoutError) -> str:
    """Describe why a server could not be listed, with its last line on stderr."""
    last_line = getattr(error, "stderr", "")
    why = str(error) or "It did not answer in time."
    return f"{why} Its last line on stderr: {last_line}" if last_line else why
