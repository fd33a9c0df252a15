"""The command `ape-stream`."""
