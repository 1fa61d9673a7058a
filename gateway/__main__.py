"""`python -m gateway` is `holdpoint`."""

from gateway.cli import main

main()
