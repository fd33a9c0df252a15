"""Batches of images and regions; batch k is a function of the seed and k.

batch                  Example and Batch, padded
world_dataset          scenes of the drawn world; phases and canvases of a run
coco_dataset           augmented batches of a user's images
canvases, held_back    sides of canvases from the images; images for the score
augment, photometric   jitter, mirror, copy-paste; brightness and colours
mixture, loader        several data sets in one run; batches made ahead, in other processes
config                 a `[[data]]` table
"""
