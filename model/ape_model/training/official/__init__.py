"""The recipes of the released models A, B, C, D and Ti, and the runs that they describe.

recipe     a recipe as TOML: rows of data sets, schedule, optimizer, augmentation
"""
