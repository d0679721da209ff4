"""Floor 1: the values and tools that every other floor shares."""
