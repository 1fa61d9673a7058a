"""The config file: its keys, parsing and checks."""
