"""`python -m gateway` is `okayed`."""

from gateway.cli import main

main()
