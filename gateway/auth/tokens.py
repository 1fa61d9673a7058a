"""Verifies JSON Web Tokens (RFC 7519). Error messages never quote the token."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.auth.protected_resource import accepted_audiences
from gateway.config.options import Config, IssuerOptions

if TYPE_CHECKING:
    from gateway.auth.jwks import Jwk, JwksCache

#: The tolerated clock difference between an issuer and this machine, in seconds.
LEEWAY = 30.0
#: The accepted `typ` values; other tokens, such as logout tokens, are signed with the same keys.
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})

Claims = Mapping[str, Any]


class InvalidToken(Exception):
    """The token is not valid here; the message may be sent to the caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken:
    """The claims of a verified token, with the issuer."""

    issuer: IssuerOptions
    claims: Claims

    def scopes(self) -> frozenset[str]:
        """Return the granted scopes, from `scope` (RFC 9068) or `scp`."""
        claim = self.claims.get("scope", self.claims.get("scp", ()))
        words = claim.split() if isinstance(claim, str) else claim
        return (
            frozenset(word for word in words if isinstance(word, str))
            if isinstance(words, list)
            else frozenset()
        )

    def text(self, claim: str) -> str | None:
        """Return a claim that is printable text of at most 200 characters, or None."""
        value = self.claims.get(claim)
        return value if isinstance(value, str) and value.isprintable() and 0 < len(value) <= 200 else None


class TokenVerifier:
    """Verifies tokens of the issuers of one config."""

    def __init__(
        self, config: Config, jwks: "Callable[[str], JwksCache]", clock: Callable[[], float]
    ) -> None:
        self._config = config
        self._jwks = jwks
        self._clock = clock

    async def verify(self, token: str, server: str) -> VerifiedToken:
        """Verify the signature, issuer, audience and times of a token for *server*; raises `InvalidToken`."""
        header, unverified = _decode_unverified(token)
        issuer = next((known for known in self._config.jwt if known.issuer == unverified.get("iss")), None)
        if issuer is None:
            raise InvalidToken("The issuer of the token is unknown.")
        algorithm = _algorithm(header, issuer)
        key = await self._key(header, issuer)
        claims = _verify_signature(
            token, key, algorithm, issuer, accepted_audiences(self._config, issuer, server)
        )
        _check_times(claims, self._clock())
        return VerifiedToken(issuer=issuer, claims=claims)

    async def _key(self, header: Claims, issuer: IssuerOptions) -> "Jwk":
        kid = header.get("kid")
        key = await self._jwks(issuer.jwks).find(kid) if isinstance(kid, str) else None
        if key is None:
            raise InvalidToken("The token is signed with a key that its issuer does not publish.")
        return key


def _decode_unverified(token: str) -> tuple[Claims, Claims]:
    """Return the header and the claims of a token, without verifying anything."""
    import jwt  # loaded only for configs with issuers

    try:
        read = jwt.decode_complete(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        raise InvalidToken("This is neither an agent token nor a JWT.") from None
    return read["header"], read["payload"]


def _algorithm(header: Claims, issuer: IssuerOptions) -> str:
    typ, algorithm = header.get("typ", "JWT"), header.get("alg")
    if not isinstance(typ, str) or typ.lower() not in _TYPES or "crit" in header:
        raise InvalidToken("Tokens of this type are not accepted.")
    if algorithm not in issuer.algorithms:
        raise InvalidToken("The signature algorithm of the token is not allowed.")
    return str(algorithm)


def _verify_signature(
    token: str, key: "Jwk", algorithm: str, issuer: IssuerOptions, audience: frozenset[str]
) -> dict[str, Any]:
    """Verify signature, issuer and audience, and return the claims; raises `InvalidToken`."""
    import jwt

    if key.get("alg", algorithm) != algorithm:
        raise InvalidToken("The signature algorithm of the token is not allowed.")
    try:
        return jwt.decode(
            token, jwt.PyJWK(dict(key), algorithm), algorithms=[algorithm], issuer=issuer.issuer, audience=audience,
            # The times are checked against the gateway's clock below.
            options={
                "require": ["exp", "iss", "aud"], "verify_exp": False, "verify_nbf": False, "verify_iat": False,
                "enforce_minimum_key_length": True,
            },
        )  # fmt: skip
    except jwt.InvalidAudienceError:
        raise InvalidToken("The audience of the token is not this server.") from None
    except jwt.MissingRequiredClaimError:
        raise InvalidToken("The token must have the claims exp, iss and aud.") from None
    except jwt.PyJWTError:
        raise InvalidToken("The signature or the format of the token is invalid.") from None


def _check_times(claims: Claims, now: float) -> None:
    """Refuse a token outside its validity period. A value that is not a number becomes NaN and fails."""
    if not now - LEEWAY < _number(claims["exp"]):
        raise InvalidToken("The token has expired.")
    if not all(_number(claims[name]) <= now + LEEWAY for name in ("nbf", "iat") if name in claims):
        raise InvalidToken("The token is not valid yet.")


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else float("nan")
