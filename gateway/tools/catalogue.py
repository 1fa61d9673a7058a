"""What each server offers: its tools' definitions, their hashes and classifications, asked for when first needed."""

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

#: Seconds a server has to name its tools, and after which one that could not is asked again.
LIST_TIMEOUT = 20.0
RETRY = 30.0
#: What is said of a server that the config changed while it was asked.
SERVER_CHANGED = "The config now says something else about it."
#: Under what name a server itself is pinned; no tool can have it.
SERVER_PIN = ""
log = logging.getLogger("okayed.catalogue")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool of one server: its definition as the server gave it, and what we make of it."""

    name: str
    definition: Mapping[str, Any]
    #: SHA-256 of the definition; "" for a tool that the server does not list.
    hash: str
    classification: ToolClassification
    #: The definition in the form that is hashed, and the accepted one when this is not it; b"" for a tool that is not listed.
    canonical: bytes = b""
    accepted: bytes = b""
    #: What is wrong with the definition, so that no call of this tool is passed on; "" when nothing is.
    defect: str = ""
    #: The names of members that its inputSchema has, at any depth.
    member_names: frozenset[str] = frozenset()
    #: Whether its schema asks for headers that are made from arguments (2026-07-28, `x-mcp-header`).
    has_param_headers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """The operator's word about a tool; it beats the classifier's."""

    category: Category | None = None
    risk: Risk | None = None
    severity: Severity | None = None


#: Is told of a tool whose definition is not the accepted one, or has a flaw.
ChangeListener = Callable[[str, Tool], None]


class Catalogue:
    """The tools of every server."""

    def __init__(self, clock: Callable[[], float], pins: Pins, changed: ChangeListener) -> None:
        self._clock = clock
        self._pins = pins
        self._changed = changed
        self._upstreams: Mapping[str, Upstream] = {}
        self._overrides: Mapping[str, Mapping[str, Override]] = {}
        self._tools: dict[str, dict[str, Tool]] = {}
        self._told: dict[tuple[str, str], str] = {}
        self._with_tasks: set[str] = set()
        #: Servers whose list is not known, or may be another by now.
        self._stale: set[str] = set()
        #: How often each server has said that its list changed.
        self._changes: Counter[str] = Counter()
        self._asked_at: dict[str, float] = {}
        #: What came of asking each server last: why it could not say, or None.
        self._problems: dict[str, str | None] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    def configure(
        self, upstreams: Mapping[str, Upstream], overrides: Mapping[str, Mapping[str, Override]]
    ) -> None:
        """Use these servers and overrides from now on; what was learnt of a server that stays is classified anew."""
        self._upstreams, self._overrides = upstreams, overrides
        known = {
            server: [tool.definition for tool in tools.values()] for server, tools in self._tools.items()
        }
        self._tools = {}
        self._stale = (self._stale | (upstreams.keys() - known.keys())) & upstreams.keys()
        for server in known.keys() & upstreams.keys():
            self._take(server, known[server])

    def forget(self, server: str) -> None:
        """Know nothing of a server any more: another one has its name now, or none. What was accepted of it stays."""
        self._tools.pop(server, None)
        self._asked_at.pop(server, None)
        self._with_tasks.discard(server)

    async def find(self, server: str, name: str) -> Tool:
        """Return the tool, asking the server for its list when it is not known, or may be another by now."""
        if self.listed_tool(server, name) is None or server in self._stale:
            await self.refresh(server)
        return self.current_tool(server, name)

    async def ensure_listed(self, server: str) -> None:
        """Ask the server for its tools unless what it listed last still stands."""
        if server in self._stale:
            await self.refresh(server)

    async def refresh_stale(self, *, only_asked: bool = False) -> None:
        """Ask each server whose tools are not known, or may be others by now; *only_asked*: of those asked before."""
        stale = self._stale & self._problems.keys() if only_asked else self._stale
        await asyncio.gather(*(self.refresh(server) for server in list(stale)))

    def listed_tool(self, server: str, name: str) -> Tool | None:
        """Return the tool as its server listed it last; it may be another by now."""
        return self._tools.get(server, {}).get(name)

    def current_tool(self, server: str, name: str) -> Tool:
        """Return the tool as far as it is known now, without asking."""
        known = self.listed_tool(server, name)
        if known is not None and server not in self._stale:
            return known
        return self._unsure(server, known or self._remembered(server, name))

    def has_output_schema(self, server: str, name: str) -> bool:
        """Say whether the results of a tool have to fit a schema, as far as is known; those of an unknown tool may."""
        tool = self.listed_tool(server, name)
        return tool is None or "outputSchema" in tool.definition

    def listed_tools(self, server: str) -> Sequence[Tool]:
        """Return what a server listed last, by name."""
        return sorted(self._tools.get(server, {}).values(), key=lambda tool: tool.name)

    def has_tasks(self, server: str) -> bool:
        """Say whether a server has tasks of its own; its calls are then not ours to make tasks of."""
        return server in self._with_tasks

    def mark_stale(self, server: str) -> None:
        """Ask again soon, and before the next call: the server said that its list changed."""
        self._changes[server] += 1
        self._asked_at.pop(server, None)
        self._stale.add(server)

    async def refresh(self, server: str) -> str | None:
        """Ask a server for its tools; returns why it could not say, or None.

        Whoever comes while it is being asked gets the same answer, and so do those who come a moment later.
        """
        async with self._asking.setdefault(server, asyncio.Lock()):
            if self._may_ask(server):
                self._asked_at[server] = self._clock()
                self._problems[server] = await self._problem(server)
            return self._problems[server]

    async def _problem(self, server: str) -> str | None:
        """Ask, and return why a server could not say; whatever it says, nothing ends but the question."""
        try:
            return await self._asked(server)
        except (GatewayError, TimeoutError) as error:
            why = _explain(error)
            log.warning("%s could not be asked for its tools: %s", server, why)
            return why
        except asyncio.CancelledError:
            # Who asked has left: whoever comes next asks anew, and does not take this for an answer.
            self._asked_at.pop(server, None)
            raise
        except Exception:
            log.exception("%s could not be asked for its tools", server)
            return "What it says of its tools could not be understood."

    async def _asked(self, server: str) -> str | None:
        upstream, changes = self._upstreams.get(server), self._changes[server]
        if upstream is None:
            return SERVER_CHANGED
        async with asyncio.timeout(LIST_TIMEOUT):
            offer = await discovery.list_tools(upstream)
        if self._upstreams.get(server) is not upstream:
            return SERVER_CHANGED
        self._recognise(server, offer.name)
        self._take(server, offer.tools)
        self._with_tasks = (self._with_tasks - {server}) | ({server} if offer.tasks else set())
        if self._changes[server] == changes:  # else they changed again while it answered
            self._stale.discard(server)
        return None

    def _may_ask(self, server: str) -> bool:
        return self._clock() >= self._asked_at.get(server, -RETRY) + RETRY

    def _learnt(self, server: str, definitions: Sequence[Mapping[str, Any]]) -> dict[str, Tool]:
        named = {name: tool for tool in definitions if isinstance(name := tool.get("name"), str)}
        twice = defects.find_duplicates(definitions)
        learnt = {}
        for name, definition in named.items():
            tool = self._defined(server, definition, tuple(named))
            learnt[name] = (
                replace(tool, defect="its server lists two tools of this name") if name in twice else tool
            )
        return learnt

    def _recognise(self, server: str, name: str) -> None:
        """Warn when another server answers at this address than before."""
        form = canonical_definition({"name": name})
        pin = self._pins.find(server, SERVER_PIN)
        if pin is not None and pin.definition != form:
            log.warning(
                "%s: the server calls itself %r now; look whether it is the one you mean", server, name
            )
        if pin is None or pin.definition != form:
            self._pins.accept(server, SERVER_PIN, form)

    def _take(self, server: str, definitions: Sequence[Mapping[str, Any]]) -> None:
        """Take what a server says of its tools, hold it against what was accepted, and tell of each change once."""
        found = {name: self._pinned(server, tool) for name, tool in self._learnt(server, definitions).items()}
        self._tools[server] = found
        for name, tool in list(found.items()):
            if (tool.accepted or tool.defect) and self._told.get((server, name)) != tool.hash:
                self._told[server, name] = tool.hash
                self._changed(server, tool)

    def _pinned(self, server: str, tool: Tool) -> Tool:
        """Compare a tool with the accepted definition; the first that is seen is accepted.

        What another server was trusted with says nothing for this one: the same definition is accepted anew, as
        on first sight, and a different one is a change, as it would be without the move.
        """
        pin = self._pins.find(server, tool.name)
        if pin is not None and pin.hash != tool.hash:
            return replace(tool, accepted=pin.definition)
        if self._pins.find_trusted(server, tool.name) is None and not tool.defect:
            self._pins.accept(server, tool.name, tool.canonical)
        return tool

    def accept(self, server: str, tool: Tool) -> None:
        """Take the definition that a tool has now for the accepted one."""
        self._pins.accept(server, tool.name, tool.canonical)
        self._tools[server][tool.name] = replace(tool, accepted=b"")

    def check_list(self, server: str, definitions: Sequence[Mapping[str, Any]]) -> None:
        """Ask again before the next call when a list that passed says other than what we know."""
        known = self._tools.get(server, {})
        for definition in definitions:
            tool = known.get(str(definition.get("name")))
            # A tool that only this agent is shown is not asked for again and again.
            differs = (
                self._may_ask(server) if tool is None else tool.canonical != canonical_definition(definition)
            )
            if differs:
                self.mark_stale(server)
                return

    def _unsure(self, server: str, tool: Tool) -> Tool:
        """Return a tool as one of which nobody can say that it is the accepted one."""
        pin = self._pins.find(server, tool.name)
        return replace(tool, hash="", canonical=b"", accepted=pin.definition if pin else b"")

    def _remembered(self, server: str, name: str) -> Tool:
        """Make a tool that is not listed of the definition that was accepted, or else of its name."""
        if (pin := self._pins.find_trusted(server, name)) is not None:
            return self._defined(
                server, msgspec.json.decode(pin.definition), tuple(self._tools.get(server, {}))
            )
        found = classify_unlisted(name, self._tools.get(server, {}))
        return Tool(
            name=name,
            definition={"name": name},
            hash="",
            classification=self._told_by_operator(server, name, found),
        )

    def _defined(self, server: str, definition: Mapping[str, Any], siblings: tuple[str, ...]) -> Tool:
        name = str(definition["name"])
        form = canonical_definition(definition)
        return Tool(
            name=name,
            definition=definition,
            hash=sha256(form),
            canonical=form,
            defect=defects.find_defect(definition, form),
            member_names=frozenset(schema_members(definition.get("inputSchema"))),
            has_param_headers=b'"x-mcp-header"' in form,
            classification=self._told_by_operator(server, name, classify(definition, siblings)),
        )

    def _told_by_operator(self, server: str, name: str, found: ToolClassification) -> ToolClassification:
        """Return what the config says of a tool where it does, and what was found elsewhere."""
        override = self._overrides.get(server, {}).get(name)
        return found if override is None else apply_override(found, override)


def apply_override(found: ToolClassification, override: Override) -> ToolClassification:
    category = override.category or found.category
    follows = RISKS[category] if override.category else found.risk
    return replace(
        found,
        category=category,
        risk=override.risk or follows,
        severity=override.severity or found.severity,
        confidence=1.0,
        evidence=("Set in the operator's config.", *found.evidence),
    )


def _explain(error: GatewayError | TimeoutError) -> str:
    """Say why a server could not be asked, with its own last words when it left any."""
    said = getattr(error, "stderr", "")
    return (
        f"{str(error) or 'It did not answer in time.'}{f' Its last line on stderr: {said}' if said else ''}"
    )
