"""Losses, and the assignment of predictions to regions.

criterion   Criterion: all losses of a step, weighted
masks       losses of masks; boxed: of regions that have a box alone
semantic    losses of maps of classes
functional  single losses, element by element
assignment  which prediction is trained on which region (DETA)
official    OfficialCriterion: the losses of the released models
deta        its assignment; points: where masks are judged
"""
