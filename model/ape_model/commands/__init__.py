"""Verbs of the command line that belong to the network; mounted through entry points.

They import torch only when they run: `ape-stream --help` must not wait for it.
"""
