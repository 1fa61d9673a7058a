"""Checks the agents, approvers and groups of a config (PURE)."""

import re
from collections.abc import Iterator, Sequence

from gateway.config.options import Config
from gateway.config.problems import Path, Problem, did_you_mean

_SHA256 = re.compile(r"[0-9a-f]{64}")
EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def find_problems(config: Config) -> Iterator[Problem]:
    """Report duplicate names and tokens, unknown names, and agents that only their owner could approve."""
    yield from _duplicates("agents", "name", [agent.name for agent in config.agents])
    for field in ("name", "slack", "email", "token_sha256"):
        yield from _duplicates(
            "approvers", field, [getattr(approver, field) for approver in config.approvers]
        )
    yield from _token_problems(config)
    yield from _server_problems(config)
    yield from _group_problems(config)
    yield from _owner_problems(config)


def _duplicates(section: str, field: str, values: Sequence[str | None]) -> Iterator[Problem]:
    seen: set[str] = set()
    for number, value in enumerate(values):
        if value is not None and value.casefold() in seen:
            yield Problem((section, number, field), f"another of the {section} already has this {field}.")
        seen.add((value or "").casefold())


def _token_problems(config: Config) -> Iterator[Problem]:
    agents_hashes = [agent.token_sha256 for agent in config.agents if agent.token_sha256 is not None]
    hashes = [("agents", n, agent.token_sha256) for n, agent in enumerate(config.agents)]
    hashes += [("approvers", n, approver.token_sha256) for n, approver in enumerate(config.approvers)]
    for section, number, value in hashes:
        path: Path = (section, number, "token_sha256")
        if value is None:
            continue
        if not _SHA256.fullmatch(value) or value == EMPTY_SHA256:
            make = f"make one with: okayed token {section[:-1]} NAME"
            yield Problem(path, f"this must be the SHA-256 of a token, 64 hex digits; {make}")
        elif section == "approvers" and value in agents_hashes:
            yield Problem(
                path,
                "an agent has the same token, and agents may not approve; give the approver a different one.",
            )
    if len(set(agents_hashes)) != len(agents_hashes):
        yield Problem(("agents",), "two agents have the same token; give each a different one.")


def _server_problems(config: Config) -> Iterator[Problem]:
    for number, agent in enumerate(config.agents):
        for server in agent.servers or []:
            if server not in config.servers:
                close = did_you_mean(server, list(config.servers))
                yield Problem(("agents", number, "servers"), f"there is no server {server!r}{close}.")


def _group_problems(config: Config) -> Iterator[Problem]:
    names = [approver.name for approver in config.approvers]
    for group, members in config.groups.items():
        if group in names:
            yield Problem(("groups", group), "an approver already has this name; rename the group.")
        for member in members:
            if member not in names:
                yield Problem(
                    ("groups", group), f"there is no approver {member!r}{did_you_mean(member, names)}."
                )


def _owner_problems(config: Config) -> Iterator[Problem]:
    """Report agents whose only possible approver is their owner."""
    if config.approvals.requester_may_approve or len(config.approvers) != 1:
        return
    [approver] = config.approvers
    names = {name.casefold() for name in (approver.name, approver.email) if name}
    for number, agent in enumerate(config.agents):
        if agent.owner is not None and agent.owner.casefold() in names:
            why = "the owner is the only approver and may not approve the calls of their own agent"
            remedy = "add another approver, or set approvals.requester_may_approve: true"
            yield Problem(("agents", number, "owner"), f"{why}; {remedy}.")
