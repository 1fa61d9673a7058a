"""Compiles the policy and judges calls by it."""
