"""Cost of a whole frame.

frame     forms of a model, compared in one run
maps      maps of every pixel, beyond the masks
profiler  time of every stage of the network
"""
