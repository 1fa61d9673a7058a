"""Authenticates agents: their own tokens, JSON Web Tokens, and the metadata by which clients find an issuer."""
