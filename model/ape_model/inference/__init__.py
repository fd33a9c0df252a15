"""A frame on its way through the network, in this order; `ape_model.perceiver` calls them.

preprocess      images to a normalised batch
detect          regions of all kinds of prompts, with their masks; mask_products: masks made once
class_maps      how much of every prompt lies where; argmax: the best one at every pixel
selection       which pairs become regions: threshold, NMS, limits; ranking: the best of all prompts
transfer        between host and GPU; cuda_graphs: replay of whole passes
device_check    whether graphs and uploads work on this GPU; threads: CPU threads for torch
"""
