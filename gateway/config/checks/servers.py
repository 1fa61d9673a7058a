"""Checks the MCP servers of a config (PURE)."""

import re
from collections.abc import Iterator

from gateway.config.addresses import is_http_url, is_secure_url
from gateway.config.checks.wording import HTTP_URL, NOT_EMPTY
from gateway.config.options import Config, OAuthOptions, ServerOptions
from gateway.config.problems import Path, Problem

SERVER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def find_problems(config: Config) -> Iterator[Problem]:
    """Report invalid names, addresses and credentials of servers."""
    if not config.servers:
        yield Problem(("servers",), "name at least one server.")
    for name, server in config.servers.items():
        path: Path = ("servers", name)
        if not SERVER_NAME.fullmatch(name):
            yield Problem(path, "a server name consists of at most 64 letters, digits, _, . and -.")
        yield from _transport_problems(path, server)
        if server.oauth is not None:
            yield from _oauth_problems((*path, "oauth"), server, server.oauth)


def _transport_problems(path: Path, server: ServerOptions) -> Iterator[Problem]:
    if (server.command is None) == (server.url is None):
        yield Problem(path, "give either a command (a list) or a url.")
    if server.command is not None and (not server.command or not server.command[0]):
        yield Problem((*path, "command"), "the list must start with the program to run.")
    if server.url is not None and not is_http_url(server.url):
        yield Problem((*path, "url"), HTTP_URL)
    if server.url is None and server.transport != "http":
        yield Problem((*path, "transport"), "only a server with a url has a transport; remove this key.")


def _oauth_problems(path: Path, server: ServerOptions, oauth: OAuthOptions) -> Iterator[Problem]:
    if server.url is None:
        yield Problem(path, "only a server with a url uses OAuth; give a command its credentials in env.")
    if "authorization" in map(str.lower, server.headers):
        yield Problem(path, "headers already sets Authorization; remove one of the two.")
    if not is_secure_url(oauth.token_url):
        yield Problem(
            (*path, "token_url"),
            "this must be an https:// address (http:// on this machine only), because the client secret is sent there.",
        )
    for field in ("client_id", "client_secret"):
        if not getattr(oauth, field):
            yield Problem((*path, field), NOT_EMPTY)
