"""Indexing: what the network knows of videos before any word, written for `ape_stream.index`.

parts        PartWriter: frames and rows, gathered and written as one part
"""
