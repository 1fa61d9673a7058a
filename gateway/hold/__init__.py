"""Holds a call: keeps its client waiting, runs it once after approval, and sends the answer."""
