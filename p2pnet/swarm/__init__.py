"""Floor 3: live connections by peer ID: dialling, listening, limits."""
