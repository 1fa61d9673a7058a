"""The tools of the servers: definitions, pins, defects, classification."""
