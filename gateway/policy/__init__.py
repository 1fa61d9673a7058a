"""Judges calls by the policy of the config."""
