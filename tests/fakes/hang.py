"""The limit that ends a test that hangs. Nothing is measured by it: on a busy machine everything takes longer."""

#: Seconds.
HANG = 60
