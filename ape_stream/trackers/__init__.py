"""Trackers: regions of one stream get lasting identities."""
