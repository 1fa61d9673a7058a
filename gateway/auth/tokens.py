"""A JSON Web Token becomes its claims, or is refused with a sentence that repeats nothing of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.auth.jwks import Jwk, JwksCache
from gateway.auth.protected_resource import audiences
from gateway.config.options import Config, IssuerOptions

#: Seconds by which the clocks of an issuer and of this machine may differ.
LEEWAY = 30.0
#: The types of token that say who may do what; others, such as a logout token, are signed with the same keys.
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})

Claims = Mapping[str, Any]


class InvalidToken(Exception):
    """A token that does not count. The message may be told to whoever sent it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken:
    """What an issuer says of the bearer."""

    issuer: IssuerOptions
    claims: Claims

    def scopes(self) -> frozenset[str]:
        """Return what the bearer was granted, from `scope` (RFC 9068) or `scp`."""
        given = self.claims.get("scope", self.claims.get("scp", ()))
        words = given.split() if isinstance(given, str) else given
        return (
            frozenset(word for word in words if isinstance(word, str))
            if isinstance(words, list)
            else frozenset()
        )

    def text(self, claim: str) -> str | None:
        """Return a claim that can name somebody, or None."""
        value = self.claims.get(claim)
        return value if isinstance(value, str) and value.isprintable() and 0 < len(value) <= 200 else None


class TokenVerifier:
    """The tokens that count in one config."""

    def __init__(self, config: Config, jwks: Callable[[str], JwksCache], clock: Callable[[], float]) -> None:
        self._config = config
        self._jwks = jwks
        self._clock = clock

    async def verify(self, token: str, server: str) -> VerifiedToken:
        """Return what the token's issuer vouches for at *server*; raises `BadToken`."""
        header, unproven = _decode_unverified(token)
        issuer = next((one for one in self._config.jwt if one.issuer == unproven.get("iss")), None)
        if issuer is None:
            raise InvalidToken("The token's issuer is not known here.")
        algorithm = _algorithm(header, issuer)
        key = await self._key(header, issuer)
        claims = _verify_signature(token, key, algorithm, issuer, audiences(self._config, issuer, server))
        _check_times(claims, self._clock())
        return VerifiedToken(issuer=issuer, claims=claims)

    async def _key(self, header: Claims, issuer: IssuerOptions) -> Jwk:
        kid = header.get("kid")
        key = await self._jwks(issuer.jwks).find(kid) if isinstance(kid, str) else None
        if key is None:
            raise InvalidToken("The token is signed with a key that its issuer does not publish.")
        return key


def _decode_unverified(token: str) -> tuple[Claims, Claims]:
    """Return header and claims of a token, of which nothing is proven yet."""
    import jwt  # only configs with issuers pay for what it loads

    try:
        read = jwt.decode_complete(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        raise InvalidToken("This is neither the token of an agent nor a JWT.") from None
    return read["header"], read["payload"]


def _algorithm(header: Claims, issuer: IssuerOptions) -> str:
    typ, algorithm = header.get("typ", "JWT"), header.get("alg")
    if not isinstance(typ, str) or typ.lower() not in _TYPES or "crit" in header:
        raise InvalidToken("The token is of a kind that is not taken here.")
    if algorithm not in issuer.algorithms:
        raise InvalidToken("The token is signed in a way that is not allowed here.")
    return str(algorithm)


def _verify_signature(
    token: str, key: Jwk, algorithm: str, issuer: IssuerOptions, audience: frozenset[str]
) -> dict[str, Any]:
    """Return the claims of a token that this key signed, from this issuer, for this audience."""
    import jwt

    if key.get("alg", algorithm) != algorithm:
        raise InvalidToken("The token is signed in a way that is not allowed here.")
    try:
        return jwt.decode(
            token, jwt.PyJWK(dict(key), algorithm), algorithms=[algorithm], issuer=issuer.issuer, audience=audience,
            # The times are checked against the gateway's own clock.
            options={
                "require": ["exp", "iss", "aud"], "verify_exp": False, "verify_nbf": False, "verify_iat": False,
                "enforce_minimum_key_length": True,
            },
        )  # fmt: skip
    except jwt.InvalidAudienceError:
        raise InvalidToken("The token is for another audience than this server.") from None
    except jwt.MissingRequiredClaimError:
        raise InvalidToken("The token must say exp, iss and aud.") from None
    except jwt.PyJWTError:
        raise InvalidToken("The token's signature or its form is wrong.") from None


def _check_times(claims: Claims, now: float) -> None:
    """Refuse a token before and after its time. What is not a number fails each comparison."""
    if not now - LEEWAY < _number(claims["exp"]):
        raise InvalidToken("The token has expired.")
    if not all(_number(claims[name]) <= now + LEEWAY for name in ("nbf", "iat") if name in claims):
        raise InvalidToken("The token is not valid yet.")


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else float("nan")
