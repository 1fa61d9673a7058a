"""Checks the JWT issuers of a config, and the agents that use their tokens (PURE)."""

import re
from collections.abc import Iterator, Sequence

from gateway.config.addresses import is_secure_url, parse_url
from gateway.config.options import AgentOptions, Config, IssuerOptions
from gateway.config.problems import Path, Problem

#: The characters of a scope (RFC 6749, section 3.3); none of them ends a quoted string.
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_SECURE_URL = "this must be an https:// address (http:// only on this machine), without a user or a fragment."


def find_problems(config: Config) -> Iterator[Problem]:
    """Report invalid issuers, unused issuers, and agents that could never authenticate."""
    yield from _url_problems(config)
    for number, issuer in enumerate(config.jwt):
        yield from _issuer_problems(("jwt", number), issuer)
        if issuer.issuer in [other.issuer for other in config.jwt[:number]]:
            yield Problem(("jwt", number, "issuer"), "this issuer appears twice; remove one of them.")
    if sum(issuer.any_subject for issuer in config.jwt) > 1:
        why = "only one issuer may have any_subject, because agents of two issuers could share a name."
        yield Problem(("jwt",), why)
    yield from _agent_problems(config)
    yield from _unused_issuer_problems(config)


def _url_problems(config: Config) -> Iterator[Problem]:
    if config.url is None:
        if config.jwt:
            why = "this needs the address that agents use; add url: https://... at the top level."
            yield Problem(("jwt",), why)
        return
    parts = parse_url(config.url)
    if parts is None or not is_secure_url(config.url) or parts.path.strip("/") or parts.query:
        example = "such as https://mcp.example.com (http:// only on this machine)"
        yield Problem(("url",), f"this must be https:// and a host, without a path or a query, {example}.")


def _issuer_problems(path: Path, issuer: IssuerOptions) -> Iterator[Problem]:
    for field in ("issuer", "jwks"):
        if not is_secure_url(getattr(issuer, field)):
            yield Problem((*path, field), _SECURE_URL)
    for field in ("audience", "algorithms"):
        if getattr(issuer, field) == []:
            yield Problem((*path, field), "name at least one, or remove the key.")
    for scope in issuer.scopes:
        if not _SCOPE.fullmatch(scope):
            why = f"{scope!r} is not a scope; a scope has no spaces, quotes or backslashes."
            yield Problem((*path, "scopes"), why)


def _agent_problems(config: Config) -> Iterator[Problem]:
    issuers = [issuer.issuer for issuer in config.jwt]
    known: set[tuple[str, str]] = set()
    for number, agent in enumerate(config.agents):
        found = _agent_problem(agent, issuers)
        subject = _subject(agent, issuers)
        if found is None and agent.subject is not None and subject in known:
            found = "another of the agents already has this subject."
        if found is not None:
            yield Problem(("agents", number), found)
        known.add(subject)


def _unused_issuer_problems(config: Config) -> Iterator[Problem]:
    """Report issuers without any agent."""
    issuers = [issuer.issuer for issuer in config.jwt]
    used = {issuer for issuer, subject in (_subject(agent, issuers) for agent in config.agents) if subject}
    for number, issuer in enumerate(config.jwt):
        if not issuer.any_subject and issuer.issuer not in used:
            why = "no agent has a subject of this issuer; add one, or set any_subject: true."
            yield Problem(("jwt", number), why)


def _subject(agent: AgentOptions, issuers: Sequence[str]) -> tuple[str, str]:
    """Return the issuer and the subject of an agent; the issuer defaults to the first one, the subject to ""."""
    return agent.issuer or "".join(issuers[:1]), agent.subject or ""


def _agent_problem(agent: AgentOptions, issuers: Sequence[str]) -> str | None:
    if (agent.token_sha256 is None) == (not agent.subject):
        return "give either token_sha256 (of an agent token) or subject (of a JWT)."
    if agent.subject is None:
        return None if agent.issuer is None else "only an agent with a subject has an issuer; remove issuer."
    if not issuers:
        return "a subject needs an issuer; add jwt, or use token_sha256 instead."
    if agent.issuer is None:
        return (
            None
            if len(issuers) == 1
            else "there are several issuers; add the issuer: https://... of this subject."
        )
    return None if agent.issuer in issuers else f"there is no issuer {agent.issuer!r} in jwt."
