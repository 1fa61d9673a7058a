"""What can be wrong with a config's issuers of tokens, and with the agents that they vouch for (PURE)."""

import re
from collections.abc import Iterator, Sequence

from gateway.config.addresses import is_secure_url, parse_url
from gateway.config.options import AgentOptions, Config, IssuerOptions
from gateway.config.yaml import Path

Said = tuple[Path, str]

#: What RFC 6749 lets a scope consist of; nothing in it can end a quoted string.
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_SAFE = "this must be an https:// address (http:// only on this machine), without a user or a fragment."


def problems(config: Config) -> Iterator[Said]:
    """Say everything that is wrong, each with its path."""
    yield from _url_problems(config)
    for number, issuer in enumerate(config.jwt):
        yield from _issuer_problems(("jwt", number), issuer)
        if issuer.issuer in [other.issuer for other in config.jwt[:number]]:
            yield ("jwt", number, "issuer"), "this issuer is given twice; keep one of them."
    if sum(issuer.any_subject for issuer in config.jwt) > 1:
        yield ("jwt",), "only one issuer may have any_subject: with two, their agents could share a name."
    yield from _agent_problems(config)


def _url_problems(config: Config) -> Iterator[Said]:
    if config.url is None:
        if config.jwt:
            yield ("jwt",), "this needs the address that agents use; add url: https://... at the top level."
        return
    parts = parse_url(config.url)
    if parts is None or not is_secure_url(config.url) or parts.path.strip("/") or parts.query:
        yield (
            ("url",),
            "this must be https:// and a host alone, such as https://mcp.example.com (http:// only on this machine).",
        )


def _issuer_problems(path: Path, issuer: IssuerOptions) -> Iterator[Said]:
    for field in ("issuer", "jwks"):
        if not is_secure_url(getattr(issuer, field)):
            yield (*path, field), _SAFE
    for field in ("audience", "algorithms"):
        if getattr(issuer, field) == []:
            yield (*path, field), "name at least one, or leave the key out."
    for scope in issuer.scopes:
        if not _SCOPE.fullmatch(scope):
            yield (*path, "scopes"), f"{scope!r} is not a scope; it has no spaces, quotes or backslashes."


def _agent_problems(config: Config) -> Iterator[Said]:
    names = [issuer.issuer for issuer in config.jwt]
    known: set[tuple[str, str]] = set()
    for number, agent in enumerate(config.agents):
        found = _agent_problem(agent, names)
        subject = (agent.issuer or "".join(names[:1]), agent.subject or "")
        if found is None and agent.subject is not None and subject in known:
            found = "another of the agents has this subject already."
        if found is not None:
            yield ("agents", number), found
        known.add(subject)
    for number, issuer in enumerate(config.jwt):
        if not issuer.any_subject and not any(name == issuer.issuer for name, subject in known if subject):
            yield (
                ("jwt", number),
                "no agent has a subject of this issuer, so nobody could use its tokens; add one, or any_subject: true.",
            )


def _agent_problem(agent: AgentOptions, names: Sequence[str]) -> str | None:
    if (agent.token_sha256 is None) == (not agent.subject):
        return "give either token_sha256 (of a token of its own) or subject (of a JWT)."
    if agent.subject is None:
        return None if agent.issuer is None else "issuer belongs to a subject, and this agent has none."
    if not names:
        return "no issuer vouches for the subject; add jwt, or give token_sha256 instead."
    if agent.issuer is None:
        return (
            None
            if len(names) == 1
            else "there are several issuers; say whose subject this is: issuer: https://..."
        )
    return None if agent.issuer in names else f"there is no issuer {agent.issuer!r} in jwt."
