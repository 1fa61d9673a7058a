"""The options of the commands, with their help texts."""

from pathlib import Path

import click

config_file = click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    default=Path("okayed.yaml"),
    show_default=True,
    envvar="OKAYED_CONFIG",
    show_envvar=True,
    help="The config file.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
restored = click.option(
    "--restored", is_flag=True, help="The store is a restored copy: void the calls that wait in it."
)
url = click.option(
    "--url", default="", help="The gateway to join, http(s)://host:port or unix:/path; needs no config."
)
port = click.option(
    "--port", type=int, default=8808, show_default=True, help="The agents' port; the inbox uses the next one."
)
check_store = click.option(
    "--store", is_flag=True, help="Check the whole file of the store, also while a gateway uses it."
)
reset_clock = click.option(
    "--reset-clock",
    is_flag=True,
    help="Reset the store's time after the clock was ahead; voids waiting calls.",
)
first_policy = click.option("--policy", is_flag=True, help="Print a first policy for these tools, as YAML.")
accept = click.option("--accept", is_flag=True, help="Accept the changed definitions, as an approver.")
arguments = click.option("--args", default="{}", help="The arguments of the call, a JSON object.")
exact = click.option("--exact", is_flag=True, help="Include hidden values; the audit trail records it.")
follow = click.option("-f", "--follow", is_flag=True, help="Keep printing new events.")
known_checkpoint = click.option(
    "--checkpoint",
    default="",
    help="A checkpoint printed by an earlier verify, to detect a truncated trail.",
)
