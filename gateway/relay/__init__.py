"""Relays everything that is not a tool call."""
