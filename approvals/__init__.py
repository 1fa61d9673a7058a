"""Approvers, held calls and their durable store: who may approve a tool call, and the proof that they did.

This package does not know MCP's transports. `gateway` imports it, never the reverse.
"""
