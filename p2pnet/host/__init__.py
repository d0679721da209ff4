"""Floor 5: the host, which is what a user holds."""
