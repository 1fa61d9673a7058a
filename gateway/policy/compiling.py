"""Compiles the policy of a config, and reports every problem with its path (PURE)."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from approvals.digest import sha256
from approvals.model import Terms
from gateway.config.options import Config, Duration, RowOptions, RuleOptions, is_off, parse_duration
from gateway.config.problems import ConfigProblems, Path, Problem, did_you_mean, format_path
from gateway.policy.conditions import ArgumentsSchema, CelExpression, ConditionError
from gateway.policy.evaluation import Action, MatrixRow, Policy, Rule, ToolRules
from gateway.policy.limits import Limit, build_limit, find_limit_problems

#: The key of a rule's `arguments` that is not a JSON Schema keyword.
ALIKE = "alike"
SourceT = TypeVar("SourceT")
CompiledT = TypeVar("CompiledT")


def compile_policy(config: Config) -> Policy:
    """Compile the policy of a config; raises `ConfigProblems` with every problem."""
    compiler = _PolicyCompiler(config)
    policy = config.policy
    tool_rules = tuple(
        ToolRules(pattern=pattern, rules=tuple(compiler.compile_rules(("policy", "tools", pattern), rules)))
        for pattern, rules in policy.tools.items()
    )
    matrix = tuple(compiler.compile_row(number, row) for number, row in enumerate(policy.matrix))
    if compiler.problems:
        raise ConfigProblems(*compiler.problems)
    basis = {"policy": policy, "groups": config.groups, "approvers": sorted(compiler.approvers)}
    return Policy(
        revision=sha256(msgspec.json.encode(basis, order="deterministic"))[:16],
        default=Action(policy.default),
        matrix=matrix,
        tool_rules=tool_rules,
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

    def compile_rules(self, path: Path, options: RuleOptions | list[RuleOptions]) -> Iterator[Rule]:
        if isinstance(options, RuleOptions):
            yield self.compile_rule(path, options)
            return
        for number, option in enumerate(options):
            yield self.compile_rule((*path, number), option)

    def compile_row(self, number: int, options: RowOptions) -> MatrixRow:
        path: Path = ("policy", "matrix", number)
        if options.action is None:
            self._report((*path, "action"), "a row of the matrix needs an action.")
        return MatrixRow(
            rule=self.compile_rule(path, options),
            category=_optional_set(options.category),
            risk=_optional_set(options.risk),
            severity=_optional_set(options.severity),
        )

    def compile_rule(self, path: Path, options: RuleOptions) -> Rule:
        name = format_path(path).removeprefix("policy.")
        alike, schema = self._split_alike((*path, "arguments"), options)
        if options.approvals is not None and options.approvals < 1:
            self._report(
                (*path, "approvals"), "at least one approval is needed; to require none, use action: allow."
            )
        approvers = self._approvers((*path, "approvers"), options.approvers)
        self._check_approver_count(path, options.approvals or 1, approvers)
        return Rule(
            name=name,
            action=None if options.action is None else Action(options.action),
            when=self._compile((*path, "when"), CelExpression, options.when),
            schema=self._compile((*path, "arguments"), ArgumentsSchema, schema),
            allows_alike=alike,
            limits=tuple(self._limits(path, name, options)),
            reason=options.reason,
            approvals=options.approvals,
            approvers=approvers,
            expire_after=self._seconds((*path, "expire_after"), options.expire_after),
            approved_for=self._seconds((*path, "approved_for"), options.approved_for),
        )

    def _split_alike(self, path: Path, options: RuleOptions) -> tuple[bool, Mapping[str, Any] | None]:
        """Split a rule's arguments into `alike` and the JSON Schema, if any."""
        schema = dict(options.arguments or {})
        match schema.pop(ALIKE, None):
            case None:
                return False, options.arguments
            case "allow" if options.when is None:
                return True, schema or None
            case "allow":
                self._report((*path, ALIKE), "this cannot depend on a condition; remove `when`.")
            case _:
                self._report((*path, ALIKE), "the only value is allow; omit it to deny.")
        return False, schema or None

    def _limits(self, path: Path, name: str, options: RuleOptions) -> Iterator[Limit]:
        for key, limit in (("rate_limit", options.rate_limit), ("spend", options.spend)):
            if limit is None:
                continue
            window = self._seconds((*path, key, "window"), limit.window) or 1.0
            built = build_limit(name, limit, window, options.reason)
            for field, why in find_limit_problems(built):
                self._report((*path, key, field), why)
            yield built

    def _approvers(self, path: Path, names: list[str] | None) -> frozenset[str] | None:
        if names is None:
            return None
        for name in names:
            if name not in self.approvers and name not in self._groups:
                close = did_you_mean(name, [*self.approvers, *self._groups])
                self._report(path, f"there is no approver and no group {name!r}{close}.")
        return frozenset(member for name in names for member in self._groups.get(name, [name]))

    def _check_approver_count(self, path: Path, needed: int, named: frozenset[str] | None) -> None:
        """Report a rule whose calls could only expire, unless the config has no approvers at all."""
        allowed = self.approvers if named is None else named
        if named is not None and not allowed:
            self._report((*path, "approvers"), "this names no approver, so its calls could only expire.")
        elif allowed and needed > len(allowed):
            few = f"{needed} must approve but only {len(allowed)} may, so its calls could only expire"
            self._report((*path, "approvals"), f"{few}; add approvers or require fewer approvals.")

    def _seconds(self, path: Path, duration: Duration | None) -> float | None:
        try:
            return None if duration is None else parse_duration(duration)
        except ValueError as error:
            self._report(path, str(error))
            return None

    def _compile(
        self, path: Path, kind: Callable[[SourceT], CompiledT], source: SourceT | None
    ) -> CompiledT | None:
        try:
            return None if source is None else kind(source)
        except ConditionError as error:
            self._report(path, f"{error}.")
            return None

    def _report(self, path: Path, message: str) -> None:
        self.problems.append(Problem(path, message))


def _seconds_or_zero(duration: Duration) -> float:
    """Return a duration in seconds, 0 if it is off."""
    return 0.0 if is_off(duration) else parse_duration(duration)


def _optional_set(names: Iterable[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
