"""Cost of a whole frame, stage by stage: all forms of the network in one run."""
