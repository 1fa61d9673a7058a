"""Agents by JWT: whose tokens count, with which keys, and how a client finds its issuer."""
