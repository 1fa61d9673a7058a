"""What a tool's name, words and parameters say of what it does: what `risk` decides by."""
