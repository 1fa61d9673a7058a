"""The rungs on which a held call is waited for: `hold` chooses, these wait and answer."""
