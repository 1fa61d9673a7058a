"""Runs the command line: `python -m gateway` is `okayed`."""

from gateway.cli.main import main

main()
