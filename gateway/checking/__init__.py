"""What can be wrong with a config: its shape, and what it means."""
