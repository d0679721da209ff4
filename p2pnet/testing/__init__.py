"""A simulated internet under virtual time, and the kit to test what is built on p2pnet."""
