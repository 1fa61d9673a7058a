"""Holds calls: keeps the client waiting, runs the call once after approval, and sends the answer."""
