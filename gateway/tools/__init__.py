"""The tools that servers offer: definitions, accepted versions, and classification."""
