"""A frame on its way through the network, in this order; `ape_model.perceiver` calls them.

preprocess      images to a normalised batch; pillow_resize: the resize on a GPU
detect          the head once per kind of prompt, then regions with their masks
selection       which (query, prompt) pairs become regions: threshold, NMS, limits
transfer        between host and GPU; cuda_graphs: replay of whole passes
device_check    whether graphs and uploads work on this GPU; threads: CPU threads for torch
"""
