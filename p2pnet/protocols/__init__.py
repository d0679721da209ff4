"""Floor 4: the protocols. Each folder is a plug-in; none knows another."""
