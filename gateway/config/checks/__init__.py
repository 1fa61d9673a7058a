"""Checks of a config whose shape is valid: each module has `find_problems(config)` for one subject (PURE)."""
