"""What no frame runs: reference forms and the official post-processing."""
