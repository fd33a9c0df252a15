"""Models on disk: find, import, fetch, load."""
