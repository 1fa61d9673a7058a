"""Runs the okayed command to completion in a folder with a config."""

import os
import subprocess
from pathlib import Path
from typing import IO

from hang import HANG
from process import OKAYED, SHOP

#: A config of one server, whose reads are allowed and whose other calls are held.
BASE = f"servers:\n  shop: {SHOP}\npolicy:\n  default: require_approval\n  matrix: [{{category: [Read], action: allow}}]\n"


def okayed(*args: str, cwd: Path, stdin: IO[str] | None = None, **env: str) -> subprocess.CompletedProcess:
    given = {**os.environ, "COLUMNS": "160", **env}
    return subprocess.run(
        [OKAYED, *args], cwd=cwd, env=given, stdin=stdin, capture_output=True, text=True, timeout=HANG
    )
