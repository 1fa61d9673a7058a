"""Refuses a folder that still has the config or store of Holdpoint, the product's earlier name.

Otherwise the gateway would create new files beside them, and start without the old policy and calls.
"""

from pathlib import Path
from shlex import quote

from gateway.config.problems import ConfigProblems, Problem


def refuse_earlier_config(path: Path) -> None:
    """Raise `ConfigProblems` if the folder has `holdpoint.yaml` but not *path*."""
    old = path.with_name("holdpoint.yaml")
    if path.name == "okayed.yaml" and old.exists() and not path.exists():
        move = f"mv {quote(str(old))} {quote(str(path))}"
        raise ConfigProblems(
            Problem((), f"Holdpoint is now called Okayed; to rename its config, run: {move}")
        )


def refuse_earlier_store(path: Path) -> None:
    """Raise `ConfigProblems` if the folder has `holdpoint.db` but not *path*."""
    if path.name == "okayed.db" and not path.exists() and path.with_name("holdpoint.db").exists():
        move = 'for file in holdpoint.db*; do mv "$file" "okayed${file#holdpoint}"; done'
        message = (
            "Holdpoint is now called Okayed; stop the old gateway and, to rename its store, run:"
            f" cd {quote(str(path.parent))} && {move}"
        )
        raise ConfigProblems(Problem(("store",), message))
