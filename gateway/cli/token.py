"""`okayed token`: make a token for an agent or an approver."""

import hashlib
import secrets

import click


def print_token(section: str, name: str) -> None:
    """Print a new token on stdout, and its line for the config's *section* on stderr."""
    token = f"okayed_{section.removesuffix('s')}_{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(token.encode()).hexdigest()
    click.echo(token)
    click.echo(f"The token is shown only once. Add this line to the config, under {section}:", err=True)
    click.echo(f"  - {{name: {name}, token_sha256: {digest}}}", err=True)
