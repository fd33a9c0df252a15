"""Batches of images and regions; batch k is a function of the seed and k.

batch                  Example and Batch, padded
world_dataset          scenes of the drawn world; phases and canvases of a run
coco, coco_dataset     a COCO file, checked; its augmented batches
augment, photometric   jitter, mirror, copy-paste; brightness and colours
mixture, config        several data sets in one run; a `[[data]]` table
"""
