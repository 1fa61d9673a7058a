"""The options and arguments of the commands, with their help texts."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT = Path("okayed.yaml")
ConfigFile = Annotated[Path, typer.Option("-c", "--config", help="The config file.", envvar="OKAYED_CONFIG")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Server = Annotated[str, typer.Argument(help="The name of the server.")]
Call = Annotated[str, typer.Argument(help="The ID of the call.")]
Restored = Annotated[
    bool, typer.Option("--restored", help="The store is a restored copy: void the calls that wait in it.")
]
Url = Annotated[
    str, typer.Option(help="The gateway to join, http(s)://host:port or unix:/path; needs no config.")
]
Port = Annotated[int, typer.Option(help="The agents' port; the inbox uses the next one.")]
CheckStore = Annotated[
    bool, typer.Option("--store", help="Check the whole file of the store, also while a gateway uses it.")
]
ResetClock = Annotated[
    bool,
    typer.Option(
        "--reset-clock", help="Reset the store's time after the clock was ahead; voids waiting calls."
    ),
]
PolicyFile = Annotated[Path, typer.Argument(help="A PolicyLayer or Intercept policy.")]
FirstPolicy = Annotated[bool, typer.Option("--policy", help="Print a first policy for these tools, as YAML.")]
Accept = Annotated[bool, typer.Option("--accept", help="Accept the changed definitions, as an approver.")]
Arguments = Annotated[str, typer.Option("--args", help="The arguments of the call, a JSON object.")]
Exact = Annotated[bool, typer.Option("--exact", help="Include hidden values; the audit trail records it.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new events.")]
TrailFile = Annotated[Path | None, typer.Argument(help="An exported trail; default: the trail of the store.")]
KnownCheckpoint = Annotated[
    str,
    typer.Option(
        "--checkpoint", help="A checkpoint printed by an earlier verify, to detect a truncated trail."
    ),
]
