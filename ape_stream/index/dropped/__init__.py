"""What an index knows of the queries that it dropped (decisions/0011).

bounds     Spheres: around their states, so that few frames need a closer look
coarse     CoarseStates: their states in 8 bits, each next to a kept one
certainty  lost_logits: what they may add to an answer
"""
