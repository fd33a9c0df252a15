"""zeromq."""
