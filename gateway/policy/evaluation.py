"""How a call is judged (PURE).

Hidden tools are denied. Named rules that match are all heard and the most restrictive wins, so their order never
matters; if there are none, the first row of the matrix that fits the tool's classification; else the default. A
condition that cannot be evaluated counts as true where it restricts and as false where it would allow.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from approvals.model import Decision, HeldCall, Terms
from gateway.policy.conditions import ArgumentsSchema, CelExpression, EvaluationFailure
from gateway.policy.limits import Limit, find_bad_amount, with_amount
from gateway.tools.classify.risk import ToolClassification
from gateway.wire.frames import TOOL_NAME
from gateway.wire.member_names import KnownNames

#: How many (server, tool) pairs are remembered with the rules that name them.
MAX_CANDIDATES = 10_000


class Action(StrEnum):
    """What a rule asks."""

    ALLOW = "allow"
    REQUIRE_APPROVAL = "require_approval"
    DENY = "deny"


#: What a call is held against where a rule says `alike: allow`.
ANY_NAMES = KnownNames((), {}, alike=True)
#: From the laxest to the strictest.
STRICTNESS = {Action.ALLOW: 0, Action.REQUIRE_APPROVAL: 1, Action.DENY: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFacts:
    """What is known of a call when it is judged."""

    server: str
    tool: str
    agent: str
    owner: str | None = None
    arguments: Mapping[str, Any]
    classification: ToolClassification
    #: The names of members that the tool's inputSchema has, at any depth.
    declared_names: frozenset[str] = frozenset()

    def variables(self) -> Mapping[str, Any]:
        """Return what a `when` may speak of."""
        found = self.classification
        risk = {"category": str(found.category), "class": str(found.risk), "severity": str(found.severity)}
        return {
            "args": self.arguments,
            "tool": self.tool,
            "server": self.server,
            "agent": self.agent,
            "risk": risk,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """One rule that was heard: where it stands, what it asks, and what there is to say about it."""

    rule: str
    action: Action | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the policy says of one call."""

    action: Action
    #: Where the rule that decided stands: `tools.put_user_policy`, `matrix[1]`, `default`.
    rule: str
    #: What its author wants the agent and the approvers to read.
    reason: str
    #: Who may approve, should it come to that.
    terms: Terms
    #: What is to be counted before the call goes on.
    limits: tuple[Limit, ...] = ()
    #: Every rule that was heard, for `okayed explain`.
    trace: tuple[Match, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One compiled rule."""

    name: str
    action: Action | None = None
    when: CelExpression | None = None
    schema: ArgumentsSchema | None = None
    limits: tuple[Limit, ...] = ()
    reason: str = ""
    approvals: int | None = None
    approvers: frozenset[str] | None = None
    expire_after: float | None = None
    approved_for: float | None = None
    #: Whether members may be spelt like known names, see `alike`.
    allows_alike: bool = False

    @property
    def member_names(self) -> Iterator[str]:
        """The names of members that it speaks of."""
        yield from self.when.member_names if self.when else ()
        yield from self.schema.member_names if self.schema else ()
        yield from (part for one in self.limits if one.argument for part in one.argument.split(".")[1:])

    def match(self, facts: CallFacts) -> Match | None:
        """Say whether this rule speaks of the call."""
        if self.when is None:
            return Match(rule=self.name, action=self.action)
        answer = self.when(facts.variables())
        if isinstance(answer, EvaluationFailure):
            counts = self.action is not Action.ALLOW
            note = f"its condition could not be evaluated ({answer.why}) and counts as {str(counts).lower()}"
            return Match(rule=self.name, action=self.action, note=note) if counts else None
        return Match(rule=self.name, action=self.action, note=f"when {self.when.source}") if answer else None

    def violation(self, arguments: Mapping[str, Any]) -> str | None:
        """Say what is wrong with the arguments: against the schema, or as an amount that is to be added up."""
        wrong = None if self.schema is None else self.schema(arguments)
        return wrong or next(filter(None, (find_bad_amount(one, arguments) for one in self.limits)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixRow:
    """A row of the matrix: a rule, and the classes of tools it is for (None: any)."""

    rule: Rule
    category: frozenset[str] | None
    risk: frozenset[str] | None
    severity: frozenset[str] | None

    def fits(self, found: ToolClassification) -> bool:
        """Say whether this row is for tools classified like this."""
        request = ((self.category, found.category), (self.risk, found.risk), (self.severity, found.severity))
        return all(wanted is None or value in wanted for wanted, value in request)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRules:
    """Rules for the tools that a pattern names: `tool`, `server/tool`, with `*` and `?`."""

    pattern: str
    rules: tuple[Rule, ...]

    def matches(self, server: str, tool: str) -> bool:
        """Say whether the pattern names this tool; exact code points, no folding."""
        return _matches_pattern(self.pattern, server, tool)


def _matches_pattern(pattern: str, server: str, tool: str) -> bool:
    return fnmatchcase(f"{server}/{tool}" if "/" in pattern else tool, pattern)


class Policy:
    """A compiled policy."""

    def __init__(
        self, *, revision: str, default: Action, matrix: tuple[MatrixRow, ...], named: tuple[ToolRules, ...], hide: tuple[str, ...],
        terms: Terms,
    ) -> None:  # fmt: skip
        self.revision = revision
        self._default = Rule(name="default", action=default)
        self._matrix = matrix
        self._named = named
        self._hide = hide
        self._terms = terms
        self._candidates: dict[tuple[str, str], tuple[Rule, ...]] = {}
        self._known: dict[tuple[str, str], tuple[frozenset[str], ToolClassification, KnownNames]] = {}

    def is_hidden(self, server: str, tool: str) -> bool:
        """Say whether agents must not know of this tool."""
        return any(_matches_pattern(pattern, server, tool) for pattern in self._hide)

    def may_hold(self, server: str, tool: str, found: ToolClassification) -> bool:
        """Say whether some call of this tool may be held, whatever its arguments."""
        rules = self._possible_rules(self._rules_for(server, tool), found)
        held = Action.REQUIRE_APPROVAL
        return any(rule.action is held or any(one.asks_person for one in rule.limits) for rule in rules)

    def _possible_rules(self, named: Sequence[Rule], found: ToolClassification) -> Sequence[Rule]:
        """Return every rule that may speak of a call of this tool, given those that name it."""
        # A rule with a condition may not be heard, and then the matrix is.
        always = any(rule.action and rule.when is None for rule in named)
        return named if always else [*named, *self._possible_rows(found)]

    def evaluate(self, facts: CallFacts) -> Verdict:
        """Judge one call."""
        if not TOOL_NAME.fullmatch(facts.tool):
            return self._denied("name", "This is not a name that a tool may have")
        if self.is_hidden(facts.server, facts.tool):
            return self._denied("hide", f"There is no tool {facts.tool}")
        named = self._rules_for(facts.server, facts.tool)
        if (wrong := self._names_for(facts, named).find_ambiguous(facts.arguments)) is not None:
            return self._denied("alike", wrong)
        heard = [(rule, match) for rule in named if (match := rule.match(facts)) is not None]
        if not any(rule.action for rule, _ in heard):
            heard.append(self._general(facts))
        return self._verdict(facts, heard)

    def _names_for(self, facts: CallFacts, named: Sequence[Rule]) -> KnownNames:
        """Return the names that members of a call must not be confused with; made anew when the tool is another."""
        key = (facts.server, facts.tool)
        declared, found, names = self._known.get(key, (None, None, ANY_NAMES))
        if declared is not facts.declared_names or found is not facts.classification:
            names = _known_names(self._possible_rules(named, facts.classification), facts.declared_names)
            if key in self._known or len(self._known) < MAX_CANDIDATES:
                self._known[key] = facts.declared_names, facts.classification, names
        return names

    def _rules_for(self, server: str, tool: str) -> tuple[Rule, ...]:
        """Return the rules that name this tool; only the name counts, so the arguments never enter the cache."""
        key = (server, tool)
        if (found := self._candidates.get(key)) is None:
            found = tuple(rule for named in self._named if named.matches(*key) for rule in named.rules)
            if len(self._candidates) < MAX_CANDIDATES:
                self._candidates[key] = found
        return found

    def _general(self, facts: CallFacts) -> tuple[Rule, Match]:
        """Return the first row that fits the tool and speaks of the call, else the default."""
        rows = (row.rule for row in self._matrix if row.fits(facts.classification))
        heard = ((rule, match) for rule in rows if (match := rule.match(facts)) is not None)
        return next(heard, (self._default, Match(rule=self._default.name, action=self._default.action)))

    def _possible_rows(self, found: ToolClassification) -> Iterator[Rule]:
        """Yield what may speak of a call of such a tool: rows with a condition, and then the first without one."""
        for row in self._matrix:
            if row.fits(found):
                yield row.rule
                if row.rule.when is None:
                    return
        yield self._default

    def _verdict(self, facts: CallFacts, heard: Sequence[tuple[Rule, Match]]) -> Verdict:
        rules = [rule for rule, _ in heard]
        trace = tuple(match for _, match in heard)
        if (wrong := _first_violation(rules, facts.arguments)) is not None:
            rule, why = wrong
            return Verdict(action=Action.DENY, rule=rule.name, reason=why, terms=self._terms, trace=trace)
        action, deciding = max(
            ((rule.action, rule) for rule in rules if rule.action is not None),
            key=lambda one: (STRICTNESS[one[0]], bool(one[1].reason), one[1].name),
        )
        return Verdict(
            action=action,
            rule=deciding.name,
            reason=deciding.reason or _default_reason(deciding),
            terms=self._strictest(rules),
            limits=tuple(with_amount(one, facts.arguments) for rule in rules for one in rule.limits),
            trace=trace,
        )

    def _strictest(self, rules: Iterable[Rule]) -> Terms:
        """Combine terms: the most approvals, the shortest life, only those approvers whom every rule names."""
        named = list(rules)
        return Terms(
            approvers=self._terms.approvers.intersection(
                *(r.approvers for r in named if r.approvers is not None)
            ),
            needed=max((r.approvals for r in named if r.approvals is not None), default=self._terms.needed),
            expire_after=_shortest([(r, r.expire_after) for r in named], self._terms.expire_after),
            approved_for=_shortest([(r, r.approved_for) for r in named], self._terms.approved_for),
            denied_for=self._terms.denied_for,
            requester_may_approve=self._terms.requester_may_approve,
        )

    def _denied(self, rule: str, reason: str) -> Verdict:
        trace = (Match(rule=rule, action=Action.DENY),)
        return Verdict(action=Action.DENY, rule=rule, reason=reason, terms=self._terms, trace=trace)


def _known_names(rules: Iterable[Rule], declared: frozenset[str]) -> KnownNames:
    """Return the names that count for a tool, or none when a rule allows alike ones."""
    heard = list(rules)
    if any(rule.allows_alike for rule in heard):
        return ANY_NAMES
    return KnownNames(declared, {name: rule.name for rule in heard for name in rule.member_names})


def _shortest(given: Iterable[tuple[Rule, float | None]], default: float) -> float:
    """Return the shortest time; a rule that asks for approval and names none stands for the default."""
    times = [
        default if time is None else time
        for rule, time in given
        if time is not None or rule.action is Action.REQUIRE_APPROVAL
    ]
    return min(times, default=default)


def can_hold(verdict: Verdict) -> bool:
    """Say whether a call of this verdict may wait for people: the rule asks for them, or a limit may."""
    if verdict.action is Action.DENY:
        return False
    return verdict.action is Action.REQUIRE_APPROVAL or any(limit.asks_person for limit in verdict.limits)


def require_approval(verdict: Verdict) -> Verdict:
    """Return the verdict on a call over a limit that asks a person."""
    if verdict.action is Action.REQUIRE_APPROVAL:
        return verdict
    return replace(verdict, action=Action.REQUIRE_APPROVAL, rule=f"{verdict.rule} (over its limit)")


def find_shortfall(verdict: Verdict, held: HeldCall, requesters: frozenset[str]) -> str | None:
    """Say how the policy now asks for more than what *held* was approved under, or None.

    Approvals that were given count only while those who gave them may still approve. *requesters* are the approvers
    who are behind its agent.
    """
    if verdict.action is Action.DENY:
        return "the policy now denies this call"
    if verdict.action is Action.ALLOW:
        return None
    approved_by = {review.approver for review in held.reviews if review.answer is Decision.APPROVE}
    may = verdict.terms.approvers - (frozenset() if verdict.terms.requester_may_approve else requesters)
    if len(approved_by & may) < verdict.terms.needed:
        return "the policy now asks for other or more approvals"
    return None


def _first_violation(rules: Iterable[Rule], arguments: Mapping[str, Any]) -> tuple[Rule, str] | None:
    return next(((rule, why) for rule in rules if (why := rule.violation(arguments)) is not None), None)


def _default_reason(rule: Rule) -> str:
    return f"the rule {rule.name} does not allow this call" if rule.action is Action.DENY else ""
