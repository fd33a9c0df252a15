"""The network: images and prompt embeddings in, regions and mask logits out.

ape, transformer          the whole, and what lies between backbone and heads
vit, rope, pyramid        backbone of the released models; nano_backbone: that of nano
encoder, fusion           image tokens attend to each other and to the text
proposals, decoder        tokens become queries, queries become regions
align, mask_head          scores of (query, prompt) pairs; masks; nano: mask head and unit of nano
deformable_attention, layers, geometry, boxes    what several of them share
"""
