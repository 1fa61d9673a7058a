"""The schema and the values of a config file."""
