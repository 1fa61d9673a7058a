"""Checks of a config whose shape is valid: each module has `problems(config)` for one subject (PURE)."""
