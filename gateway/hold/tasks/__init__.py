"""Held calls as tasks, in the dialects of 2026-07-28 (an extension) and of 2025-11-25."""
