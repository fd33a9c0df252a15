"""What no frame runs: reference forms of fast paths, and the official post-processing.

modules           each exact rewrite as the papers write it; patch: a whole model in these forms
nms               greedy suppression, plain
official_topk     detections as the released evaluation selects them
official_paste    masks by way of 128 x 128 cells, as the official detector returns them
panoptic          semantic and panoptic maps
mask_prompt, phrase_padding    two official options of the input
"""
