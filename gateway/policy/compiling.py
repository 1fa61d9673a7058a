"""A policy from the config: every rule compiled once, every name and condition that is wrong told with its place (PURE)."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from approvals.digest import sha256
from approvals.model import Terms
from gateway.config.options import Config, Duration, RowOptions, RuleOptions, is_off, parse_duration
from gateway.config.problems import ConfigProblems, Path, Problem, did_you_mean, format_path
from gateway.policy.conditions import ArgumentsSchema, CelExpression, ConditionError
from gateway.policy.evaluation import Action, MatrixRow, Policy, Rule, ToolRules
from gateway.policy.limits import Limit, build_limit, find_problems

#: The key of a rule's `arguments` that is no keyword of JSON Schema.
ALIKE = "alike"
Source = TypeVar("Source")
Compiled = TypeVar("Compiled")


def compile_policy(config: Config) -> Policy:
    """Compile the policy of a config; raises `ConfigProblems` with every condition and name that is wrong."""
    compiler = _PolicyCompiler(config)
    policy = config.policy
    named = tuple(
        ToolRules(pattern=pattern, rules=tuple(compiler.rules(("policy", "tools", pattern), rules)))
        for pattern, rules in policy.tools.items()
    )
    matrix = tuple(compiler.row(number, row) for number, row in enumerate(policy.matrix))
    if compiler.problems:
        raise ConfigProblems(*compiler.problems)
    judged_by = {"policy": policy, "groups": config.groups, "approvers": sorted(compiler.approvers)}
    return Policy(
        revision=sha256(msgspec.json.encode(judged_by, order="deterministic"))[:16],
        default=Action(policy.default),
        matrix=matrix,
        named=named,
        hide=tuple(policy.hide),
        terms=compiler.terms,
    )


class _PolicyCompiler:
    def __init__(self, config: Config) -> None:
        self.problems: list[Problem] = []
        self.approvers = frozenset(approver.name for approver in config.approvers)
        self._groups = config.groups
        self.terms = Terms(
            approvers=self.approvers,
            expire_after=parse_duration(config.approvals.expire_after),
            approved_for=parse_duration(config.approvals.approved_for),
            denied_for=_seconds_or_zero(config.approvals.remember_denials),
            requester_may_approve=config.approvals.requester_may_approve,
        )

    def rules(self, path: Path, options: RuleOptions | list[RuleOptions]) -> Iterator[Rule]:
        if isinstance(options, RuleOptions):
            yield self.rule(path, options)
            return
        for number, option in enumerate(options):
            yield self.rule((*path, number), option)

    def row(self, number: int, options: RowOptions) -> MatrixRow:
        path: Path = ("policy", "matrix", number)
        if options.action is None:
            self._problem((*path, "action"), "a row of the matrix needs an action.")
        return MatrixRow(
            rule=self.rule(path, options),
            category=_optional_set(options.category),
            risk=_optional_set(options.risk),
            severity=_optional_set(options.severity),
        )

    def rule(self, path: Path, options: RuleOptions) -> Rule:
        name = format_path(path).removeprefix("policy.")
        alike, schema = self._alike((*path, "arguments"), options)
        if options.approvals is not None and options.approvals < 1:
            self._problem(
                (*path, "approvals"), "at least one approval is needed; to need none, say action: allow."
            )
        approvers = self._approvers((*path, "approvers"), options.approvers)
        self._enough(path, options.approvals or 1, approvers)
        return Rule(
            name=name,
            action=None if options.action is None else Action(options.action),
            when=self._compiled((*path, "when"), CelExpression, options.when),
            schema=self._compiled((*path, "arguments"), ArgumentsSchema, schema),
            allows_alike=alike,
            limits=tuple(self._limits(path, name, options)),
            reason=options.reason,
            approvals=options.approvals,
            approvers=approvers,
            expire_after=self._seconds((*path, "expire_after"), options.expire_after),
            approved_for=self._seconds((*path, "approved_for"), options.approved_for),
        )

    def _alike(self, path: Path, options: RuleOptions) -> tuple[bool, Mapping[str, Any] | None]:
        """Take `alike` out of a rule's arguments; the rest is their JSON Schema, if there is any."""
        schema = dict(options.arguments or {})
        match schema.pop(ALIKE, None):
            case None:
                return False, options.arguments
            case "allow" if options.when is None:
                return True, schema or None
            case "allow":
                self._problem((*path, ALIKE), "this cannot depend on a condition; take `when` away.")
            case _:
                self._problem((*path, ALIKE), "the only word for this is allow; leave it out to deny.")
        return False, schema or None

    def _limits(self, path: Path, name: str, options: RuleOptions) -> Iterator[Limit]:
        for key, asked in (("rate_limit", options.rate_limit), ("spend", options.spend)):
            if asked is None:
                continue
            window = self._seconds((*path, key, "window"), asked.window) or 1.0
            made = build_limit(name, asked, window, options.reason)
            for field, why in find_problems(made):
                self._problem((*path, key, field), why)
            yield made

    def _approvers(self, path: Path, names: list[str] | None) -> frozenset[str] | None:
        if names is None:
            return None
        for name in names:
            if name not in self.approvers and name not in self._groups:
                close = did_you_mean(name, [*self.approvers, *self._groups])
                self._problem(path, f"there is no approver and no group {name!r}{close}.")
        return frozenset(member for name in names for member in self._groups.get(name, [name]))

    def _enough(self, path: Path, needed: int, named: frozenset[str] | None) -> None:
        """Note a rule whose calls could only expire; where a config has no approvers at all, that is plain anyway."""
        may = self.approvers if named is None else named
        if named is not None and not may:
            self._problem((*path, "approvers"), "nobody is named here, so its calls could only expire.")
        elif may and needed > len(may):
            few = f"{needed} must approve and {len(may)} may, so its calls could only expire"
            self._problem((*path, "approvals"), f"{few}; name more approvers, or ask for fewer.")

    def _seconds(self, path: Path, duration: Duration | None) -> float | None:
        try:
            return None if duration is None else parse_duration(duration)
        except ValueError as error:
            self._problem(path, str(error))
            return None

    def _compiled(
        self, path: Path, kind: Callable[[Source], Compiled], source: Source | None
    ) -> Compiled | None:
        try:
            return None if source is None else kind(source)
        except ConditionError as error:
            self._problem(path, f"{error}.")
            return None

    def _problem(self, path: Path, message: str) -> None:
        self.problems.append(Problem(path, message))


def _seconds_or_zero(duration: Duration) -> float:
    """Return a duration in seconds, 0 for one that is turned off."""
    return 0.0 if is_off(duration) else parse_duration(duration)


def _optional_set(names: Iterable[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
