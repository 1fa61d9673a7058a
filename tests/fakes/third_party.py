"""Third-party programs for end-to-end tests: npm packages, and Python packages that cannot share .venv.

`python third_party.py` installs what is missing. The lists in clients/ name every package with its version, so nothing is resolved.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import npm

ROOT = Path(__file__).parents[2]
LISTS = Path(__file__).with_name("clients")
#: SDK 1.x with the LangChain adapters and servers built on it; FastMCP's client; the OpenAI Agents SDK on either SDK; Pydantic AI.
ENVIRONMENTS = ("mcp1", "fastmcp", "openai", "openai1", "pydantic")


def program(environment: str, name: str = "python") -> str:
    """Return a program of an environment."""
    return str(ROOT / f".venv-{environment}" / "bin" / name)


def install() -> None:
    """Install what is missing."""
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(npm.install), *(pool.submit(fill, name) for name in ENVIRONMENTS)]:
            done.result()


def fill(environment: str) -> None:
    """Install the packages of an environment's list. A copy of the list inside marks the environment as complete."""
    wanted = LISTS / f"{environment}.txt"
    folder = ROOT / f".venv-{environment}"
    filled = folder / "filled.txt"
    if filled.exists() and filled.read_text() == wanted.read_text():
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", program(environment), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--requirement", str(wanted)], check=True)
    filled.write_text(wanted.read_text())


if __name__ == "__main__":
    install()
