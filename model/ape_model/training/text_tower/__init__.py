"""Distillation of a sentence encoder into nano's text tower.

command, run   `ape-stream train-text`; one whole run
teacher        the pretrained sentence encoder (extra `distil`)
distillation   corpus, losses and loop
templates      sentences of size and position
check          whether the result distinguishes names
"""
