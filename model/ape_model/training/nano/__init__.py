"""What nano gives to the loop.

config             keys at the top of a recipe
step, learner      losses of a batch; which weights learn, and how fast
"""
