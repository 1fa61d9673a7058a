"""Translates PolicyLayer policies (Intercept files, catalogue pages) into Okayed's format."""
