"""Judges a call by the compiled policy (PURE).

A hidden tool is denied. All matching rules for the tool apply and the strictest wins, so their order never matters.
Without one, the first matching row of the matrix applies, else the default. A condition that cannot be evaluated
is taken as true in a rule that restricts, and as false in a rule that allows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from approvals.model import Decision, HeldCall, Terms
from gateway.policy.conditions import ArgumentsSchema, CelExpression, EvaluationFailure
from gateway.policy.limits import Limit, find_bad_amount, with_amount
from gateway.tools.classify.risk import ToolClassification
from gateway.wire.frames import TOOL_NAME
from gateway.wire.member_names import KnownNames

#: The most (server, tool) pairs whose rules, and whose verdict, are cached.
MAX_CACHED = 10_000


class Action(StrEnum):
    """The action of a rule or a verdict."""

    ALLOW = "allow"
    REQUIRE_APPROVAL = "require_approval"
    DENY = "deny"


#: The known names under `alike: allow`, which allows every name.
ANY_NAMES = KnownNames((), {}, allow_all=True)
#: From least to most strict.
STRICTNESS = {Action.ALLOW: 0, Action.REQUIRE_APPROVAL: 1, Action.DENY: 2}


class CallFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The facts by which a call is judged."""

    server: str
    tool: str
    agent: str
    owner: str | None = None
    arguments: Mapping[str, Any]
    classification: ToolClassification
    #: The member names in the tool's inputSchema, at any depth.
    declared_names: frozenset[str] = frozenset()

    def variables(self) -> Mapping[str, Any]:
        """Return the variables of a `when` condition."""
        classification = self.classification
        risk = {
            "category": str(classification.category),
            "class": str(classification.risk),
            "severity": str(classification.severity),
        }
        return {
            "args": self.arguments,
            "tool": self.tool,
            "server": self.server,
            "agent": self.agent,
            "risk": risk,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """One rule that applied to a call: its place in the policy, its action, and a note."""

    rule: str
    action: Action | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The policy's verdict on one call."""

    action: Action
    #: The place of the deciding rule: `tools.put_user_policy`, `matrix[1]`, `default`.
    rule: str
    #: The reason, for the agent and the approvers.
    reason: str
    #: The terms of an approval, if one is needed.
    terms: Terms
    #: The limits that count this call before it is forwarded.
    limits: tuple[Limit, ...] = ()
    #: Every rule that applied, for `okayed explain`.
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
    #: Whether members may resemble known names (`alike: allow`).
    allows_alike: bool = False

    @property
    def member_names(self) -> Iterator[str]:
        """The member names that the rule uses."""
        yield from self.when.member_names if self.when else ()
        yield from self.schema.member_names if self.schema else ()
        yield from (part for limit in self.limits if limit.argument for part in limit.argument.split(".")[1:])

    def match(self, facts: CallFacts) -> Match | None:
        """Return the match if the rule applies to the call, else None."""
        if self.when is None:
            return Match(rule=self.name, action=self.action)
        answer = self.when(facts.variables())
        if isinstance(answer, EvaluationFailure):
            if self.action is Action.ALLOW:
                return None
            note = f"its condition could not be evaluated ({answer.why}) and is taken as true"
            return Match(rule=self.name, action=self.action, note=note)
        return Match(rule=self.name, action=self.action, note=f"when {self.when.source}") if answer else None

    @property
    def depends_on_call(self) -> bool:
        """Whether the rule reads more of a call than the names of its server and tool."""
        return self.when is not None or self.schema is not None or bool(self.limits)

    def violation(self, arguments: Mapping[str, Any]) -> str | None:
        """Return the first violation of the schema or of a limited amount, or None."""
        wrong = None if self.schema is None else self.schema(arguments)
        return wrong or next(filter(None, (find_bad_amount(limit, arguments) for limit in self.limits)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixRow:
    """A row of the matrix: a rule, and the classifications it applies to (None: any)."""

    rule: Rule
    category: frozenset[str] | None
    risk: frozenset[str] | None
    severity: frozenset[str] | None

    def fits(self, classification: ToolClassification) -> bool:
        """Return whether this row applies to a classification."""
        pairs = (
            (self.category, classification.category),
            (self.risk, classification.risk),
            (self.severity, classification.severity),
        )
        return all(wanted is None or value in wanted for wanted, value in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRules:
    """The rules for a tool pattern: `tool` or `server/tool`, with `*` and `?`."""

    pattern: str
    rules: tuple[Rule, ...]

    def matches(self, server: str, tool: str) -> bool:
        """Return whether the pattern matches this tool, by exact code points."""
        return _matches_pattern(self.pattern, server, tool)


class ToolPolicy(msgspec.Struct, frozen=True):
    """The part of a policy that applies to one tool, as long as the tool is declared and classified as here."""

    declared_names: frozenset[str]
    classification: ToolClassification
    rules: tuple[Rule, ...]
    #: The names that a call's members must not resemble. They are compared in every call.
    known_names: KnownNames
    #: The verdict on every other call of the tool; None if it depends on the call.
    fixed_verdict: Verdict | None

    def fits(self, facts: CallFacts) -> bool:
        """Return whether the tool is still the same."""
        return self.declared_names is facts.declared_names and self.classification is facts.classification


def _matches_pattern(pattern: str, server: str, tool: str) -> bool:
    return fnmatchcase(f"{server}/{tool}" if "/" in pattern else tool, pattern)


class Policy:
    """A compiled policy; `evaluate` judges a call."""

    def __init__(
        self,
        *,
        revision: str,
        default: Action,
        matrix: tuple[MatrixRow, ...],
        tool_rules: tuple[ToolRules, ...],
        hide: tuple[str, ...],
        terms: Terms,
    ) -> None:
        self.revision = revision
        self._default = Rule(name="default", action=default)
        self._matrix = matrix
        self._tool_rules = tool_rules
        self._hide = hide
        self._terms = terms
        self._rules_cache: dict[tuple[str, str], tuple[Rule, ...]] = {}
        self._tools_cache: dict[tuple[str, str], ToolPolicy] = {}

    def evaluate(self, facts: CallFacts) -> Verdict:
        """Judge one call."""
        tool = self._tools_cache.get((facts.server, facts.tool))
        if tool is None or not tool.fits(facts):
            if not TOOL_NAME.fullmatch(facts.tool):
                return self._deny("name", "This is not a valid tool name")
            tool = self._keep(facts, self._policy_for(facts))
        if (ambiguous := tool.known_names.find_ambiguous(facts.arguments)) is not None:
            return self._deny("alike", ambiguous)
        return tool.fixed_verdict or self._judge(facts, tool.rules)

    def _policy_for(self, facts: CallFacts) -> ToolPolicy:
        """Return the part of the policy that applies to the tool of a call."""
        declared, classification = facts.declared_names, facts.classification
        if self.is_hidden(facts.server, facts.tool):
            hidden = self._deny("hide", f"There is no tool {facts.tool}")
            return ToolPolicy(declared, classification, (), ANY_NAMES, hidden)
        named = self._rules_for(facts.server, facts.tool)
        possible = self._possible_rules(named, classification)
        fixed = None if any(rule.depends_on_call for rule in possible) else self._judge(facts, named)
        return ToolPolicy(declared, classification, named, _known_names(possible, declared), fixed)

    def _keep(self, facts: CallFacts, tool: ToolPolicy) -> ToolPolicy:
        key = (facts.server, facts.tool)
        if key in self._tools_cache or len(self._tools_cache) < MAX_CACHED:
            self._tools_cache[key] = tool
        return tool

    def _judge(self, facts: CallFacts, named: Sequence[Rule]) -> Verdict:
        """Judge a call by the rules that apply to it; *named* are the rules for the tool's name."""
        applied = [(rule, match) for rule in named if (match := rule.match(facts)) is not None]
        if not any(rule.action for rule, _ in applied):
            applied.append(self._apply_matrix(facts))
        return self._combine(facts, applied)

    def is_hidden(self, server: str, tool: str) -> bool:
        """Return whether the tool is hidden from agents."""
        return any(_matches_pattern(pattern, server, tool) for pattern in self._hide)

    def _rules_for(self, server: str, tool: str) -> tuple[Rule, ...]:
        """Return the rules for this tool, cached by name; arguments never enter the cache."""
        key = (server, tool)
        if (found := self._rules_cache.get(key)) is None:
            found = tuple(rule for tools in self._tool_rules if tools.matches(*key) for rule in tools.rules)
            if len(self._rules_cache) < MAX_CACHED:
                self._rules_cache[key] = found
        return found

    def _apply_matrix(self, facts: CallFacts) -> tuple[Rule, Match]:
        """Return the first row of the matrix that applies to the call, else the default."""
        rows = (row.rule for row in self._matrix if row.fits(facts.classification))
        applied = ((rule, match) for rule in rows if (match := rule.match(facts)) is not None)
        return next(applied, (self._default, Match(rule=self._default.name, action=self._default.action)))

    def _combine(self, facts: CallFacts, applied: Sequence[tuple[Rule, Match]]) -> Verdict:
        """Combine the rules that apply: a violation denies, else the strictest action wins."""
        rules = [rule for rule, _ in applied]
        trace = tuple(match for _, match in applied)
        if (wrong := _first_violation(rules, facts.arguments)) is not None:
            rule, why = wrong
            return Verdict(action=Action.DENY, rule=rule.name, reason=why, terms=self._terms, trace=trace)
        action, deciding = max(
            ((rule.action, rule) for rule in rules if rule.action is not None),
            key=lambda pair: (STRICTNESS[pair[0]], bool(pair[1].reason), pair[1].name),
        )
        return Verdict(
            action=action,
            rule=deciding.name,
            reason=deciding.reason or _default_reason(deciding),
            terms=self._combine_terms(rules),
            limits=tuple(with_amount(limit, facts.arguments) for rule in rules for limit in rule.limits),
            trace=trace,
        )

    def _combine_terms(self, rules: Iterable[Rule]) -> Terms:
        """Combine terms: the most approvals, the shortest times, the approvers that every rule names."""
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

    def _deny(self, rule: str, reason: str) -> Verdict:
        trace = (Match(rule=rule, action=Action.DENY),)
        return Verdict(action=Action.DENY, rule=rule, reason=reason, terms=self._terms, trace=trace)

    def may_hold(self, server: str, tool: str, classification: ToolClassification) -> bool:
        """Return whether some call of this tool could be held."""
        rules = self._possible_rules(self._rules_for(server, tool), classification)
        held = Action.REQUIRE_APPROVAL
        return any(
            rule.action is held or any(limit.needs_approval for limit in rule.limits) for rule in rules
        )

    def _possible_rules(self, named: Sequence[Rule], classification: ToolClassification) -> Sequence[Rule]:
        """Return every rule that could apply to a call; *named* are the rules for the tool's name."""
        # If no rule applies for certain, a row of the matrix may.
        always = any(rule.action and rule.when is None for rule in named)
        return named if always else [*named, *self._possible_rows(classification)]

    def _possible_rows(self, classification: ToolClassification) -> Iterator[Rule]:
        """Yield the rows that could apply to such a tool, up to the first without a condition, and the default."""
        for row in self._matrix:
            if row.fits(classification):
                yield row.rule
                if row.rule.when is None:
                    return
        yield self._default


def _known_names(rules: Iterable[Rule], declared: frozenset[str]) -> KnownNames:
    """Collect the known names for a tool; with `alike: allow` every name is allowed."""
    applied = list(rules)
    if any(rule.allows_alike for rule in applied):
        return ANY_NAMES
    return KnownNames(declared, {name: rule.name for rule in applied for name in rule.member_names})


def _shortest(times_by_rule: Iterable[tuple[Rule, float | None]], default: float) -> float:
    """Return the shortest time in seconds; a rule that requires approval without a time has the default."""
    times = [
        default if time is None else time
        for rule, time in times_by_rule
        if time is not None or rule.action is Action.REQUIRE_APPROVAL
    ]
    return min(times, default=default)


def can_hold(verdict: Verdict) -> bool:
    """Return whether a call with this verdict may be held, by its rule or by a limit."""
    if verdict.action is Action.DENY:
        return False
    return verdict.action is Action.REQUIRE_APPROVAL or any(limit.needs_approval for limit in verdict.limits)


def require_approval(verdict: Verdict) -> Verdict:
    """Return the verdict on a call over a limit with `on_exceed: require_approval`."""
    if verdict.action is Action.REQUIRE_APPROVAL:
        return verdict
    return replace(verdict, action=Action.REQUIRE_APPROVAL, rule=f"{verdict.rule} (over its limit)")


def find_shortfall(verdict: Verdict, held: HeldCall, requesters: frozenset[str]) -> str | None:
    """Return why the approvals of *held* no longer satisfy the policy, or None.

    An approval is valid only while its approver may still approve. *requesters* are the approvers behind the agent.
    """
    if verdict.action is Action.DENY:
        return "the policy now denies this call"
    if verdict.action is Action.ALLOW:
        return None
    approved_by = {review.approver for review in held.reviews if review.answer is Decision.APPROVE}
    allowed = verdict.terms.approvers - (frozenset() if verdict.terms.requester_may_approve else requesters)
    if len(approved_by & allowed) < verdict.terms.needed:
        return "the policy now requires other or more approvals"
    return None


def _first_violation(rules: Iterable[Rule], arguments: Mapping[str, Any]) -> tuple[Rule, str] | None:
    return next(((rule, why) for rule in rules if (why := rule.violation(arguments)) is not None), None)


def _default_reason(rule: Rule) -> str:
    return f"the rule {rule.name} does not allow this call" if rule.action is Action.DENY else ""
