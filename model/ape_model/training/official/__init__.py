"""The recipes of the released models A, B, C, D and Ti, and the runs that they describe.

recipe           a recipe as TOML: rows of data sets, schedule, optimizer, augmentation
records          the annotated images of a row, in little memory
sampling         which images come when: repeat factors, ratios, aspects
samples, paste   an augmented image; copy-paste on free background
batches          samples, padded
prompts          names or phrases of a batch, and earlier phrases as negatives
step, optimizer  losses of a batch; what learns how fast
run              all of it, to a model; backbone: its pre-trained weights
check, miniature  a recipe proved on tiny copies of its data sets
"""
