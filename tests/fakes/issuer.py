"""A token issuer with real keys: its key set, authorization server metadata, and client credentials."""

import base64
import json
from collections.abc import Callable
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from jwt.algorithms import get_default_algorithms

_RSA = rsa.generate_private_key(65537, 2048)
_WEAK = rsa.generate_private_key(65537, 1024)
MAKE: dict[str, Callable[[], PrivateKeyTypes]] = {
    "RS256": lambda: _RSA,
    "PS256": lambda: _RSA,
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
    "weak": lambda: _WEAK,
}


def unsigned(part: Any) -> str:
    """Return one encoded part of a token."""
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


class Issuer:
    """The issuer. `fetches` counts the fetches of its keys."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.fetches = 0
        self.requests: list[dict] = []
        self.published: list[dict] = []
        self.keys: dict[str, PrivateKeyTypes] = {}
        self.respond: Callable[[web.Request], web.StreamResponse] | None = None
        self.scope = ""
        self.url = ""

    async def __aenter__(self) -> "Issuer":
        app = web.Application()
        app.router.add_get("/jwks.json", self._jwks)
        app.router.add_get("/.well-known/oauth-authorization-server", self._metadata)
        app.router.add_post("/token", self._token)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"
        self.add("one", "RS256")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()

    def add(self, kid: str, algorithm: str, *, make: str = "", **more: Any) -> None:
        """Create a key and publish its public half."""
        key = self.keys[kid] = MAKE[make or algorithm]()
        public = get_default_algorithms()[algorithm].to_jwk(key.public_key(), as_dict=True)
        self.published.append({**public, "kid": kid, **more})

    def token(
        self, subject: Any = "bot", *, kid: Any = "one", algorithm: str = "RS256", header: dict | None = None, key: Any = None, **claims: Any
    ) -> str:  # fmt: skip
        """Return a valid token with the given changes. A claim that is None is left out."""
        now = int(self.now())
        all_claims = {"iss": self.url, "sub": subject, "iat": now, "exp": now + 300, **claims}
        given = {name: value for name, value in all_claims.items() if value is not None}
        return jwt.encode(
            given, key or self.keys[kid], algorithm=algorithm, headers={"kid": kid, **(header or {})}
        )

    async def _jwks(self, request: web.Request) -> web.StreamResponse:
        self.fetches += 1
        return self.respond(request) if self.respond else web.json_response({"keys": self.published})

    async def _metadata(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "response_types_supported": ["code"],
                "grant_types_supported": ["client_credentials"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            }
        )

    async def _token(self, request: web.Request) -> web.Response:
        form = dict(await request.post())
        self.requests.append(form)
        token = self.token(aud=form.get("resource"), scope=form.get("scope"))
        return web.json_response(
            {"access_token": token, "token_type": "Bearer", "expires_in": 300, "scope": form.get("scope")}
        )
