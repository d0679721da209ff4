"""Floor 2: securities, which authenticate the remote and encrypt."""
