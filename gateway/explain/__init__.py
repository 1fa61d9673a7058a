"""Explains a tool in words: its classification, what the policy asks of it, and config to paste."""
