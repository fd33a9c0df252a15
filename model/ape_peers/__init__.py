"""Other open-vocabulary detectors as perceivers: the same streams, data and figures as for APE.

perceiver       what they share: thresholds, duplicates, the strongest regions
pretrained      networks of transformers: their options, and how they are read
regions         candidates of one frame, and which of them are kept
images          frames as a network's input
places          folders of models, and how they are read
owlv2           OWLv2, of transformers
grounding_dino  Grounding DINO, of transformers
sam3            SAM 3, of transformers, with masks
yolo            YOLOE and YOLO-World, of ultralytics
detector        any detector with the calls of torchvision
"""
