"""The `okayed` command line."""
