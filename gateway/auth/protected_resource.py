"""OAuth 2.0 protected resource metadata and Bearer challenges for the servers (PURE).

RFC 9728 (protected resource metadata), RFC 6750 (Bearer challenges), RFC 8707 (the resource as audience).
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from gateway.config.options import Config, IssuerOptions

WELL_KNOWN = "/.well-known/oauth-protected-resource"


def accepted_audiences(config: Config, issuer: IssuerOptions, server: str) -> frozenset[str]:
    """Return the accepted audiences: the issuer's list, or else the URLs of this server and of the gateway."""
    if issuer.audience is not None:
        return frozenset(issuer.audience)
    # A URL without a path is equivalent with and without its slash (RFC 3986, section 6.2.3).
    return frozenset({_base(config), f"{_base(config)}/", _base(config) + _path(server)})


def build_metadata(config: Config, server: str) -> Mapping[str, Any] | None:
    """Return the metadata of a server (RFC 9728, section 2); None for an unknown server, or without issuers."""
    if not config.jwt or server not in config.servers:
        return None
    scopes = _scopes(config)
    return {
        "resource": _base(config) + _path(server),
        "authorization_servers": [issuer.issuer for issuer in config.jwt],
        "bearer_methods_supported": ["header"],
        **({"scopes_supported": scopes} if scopes else {}),
        "resource_name": f"{server} behind Okayed",
    }


def build_challenge(
    config: Config, server: str, error: str | None = None, issuer: IssuerOptions | None = None
) -> str:
    """Return the WWW-Authenticate header (RFC 9728, section 5.1): metadata URL, scopes, error."""
    if not config.jwt:
        return "Bearer"
    parts = {
        "resource_metadata": f"{_base(config)}{WELL_KNOWN}{_path(server)}",
        "scope": " ".join(issuer.scopes if issuer else _scopes(config)),
        "error": error,
    }
    return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in parts.items() if value)


def _base(config: Config) -> str:
    return (config.url or "").rstrip("/").lower()


def _path(server: str) -> str:
    return f"/mcp/{quote(server, safe='')}"


def _scopes(config: Config) -> list[str]:
    return list(dict.fromkeys(scope for issuer in config.jwt for scope in issuer.scopes))
