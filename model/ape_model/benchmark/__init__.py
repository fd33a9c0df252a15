"""Cost of a whole frame.

frame     forms of a model, compared in one run
profiler  time of every stage of the network
"""
