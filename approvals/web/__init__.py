"""The web inbox: pages for people and an API for programs, on a separate listener that agents never reach."""
