"""Explains a tool: its classification, the verdict of the policy, and config to paste."""
