"""The time limit of a test that hangs. It is not a performance limit: a busy machine may be slow."""

#: Seconds.
HANG = 60
