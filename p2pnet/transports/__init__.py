"""Floor 2: transports reach addresses; each delivers capable connections."""
