"""`okayed import`: translate a PolicyLayer or Intercept policy to Okayed's format."""

from pathlib import Path

import click

from gateway.errors import UserError
from gateway.policy.policylayer.translation import translate


def import_policy(file: Path) -> None:
    """Print the translated policy; exits 3 and lists on stderr the parts that could not be translated."""
    imported = translate(_read(file), file.name)
    click.echo(imported.yaml, nl=False)
    if imported.notes:
        click.echo(f"These parts of {file.name} have no equivalent in Okayed:", err=True)
        for note in imported.notes:
            click.echo(f"  {note}", err=True)
        raise click.exceptions.Exit(3)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text.") from error
    except OSError as error:
        remedy = "give the file of a PolicyLayer or Intercept policy"
        raise UserError(f"{file} cannot be read ({error.strerror}); {remedy}.") from error
