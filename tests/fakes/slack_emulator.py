"""Slack's Web API as emulated by the npm package `emulate`, an independent implementation."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from npm import FOLDER, MODULES, NODE, install

MAIN = MODULES / "emulate" / "dist" / "index.js"
SEED = "slack:\n  team: {name: Okayed, domain: okayed}\n  users: [{name: alice, real_name: Alice, email: alice@example.com}]\n"


@contextmanager
def emulated_slack(port: int) -> Iterator[str]:
    """Run the emulator on localhost; yields the base_url for AsyncWebClient."""
    install()
    seed = FOLDER / "seed.yaml"
    seed.write_text(SEED)
    process = subprocess.Popen(
        [NODE, str(MAIN), "start", "--service", "slack", "--port", str(port), "--seed", str(seed)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        for line in process.stdout:
            if re.search(r"Ready", line):
                break
        yield f"http://127.0.0.1:{port}/api/"
    finally:
        process.kill()
        process.communicate()
