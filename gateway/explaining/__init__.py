"""What is said of a tool: on its page, in the terminal, on the card, in a first policy."""
