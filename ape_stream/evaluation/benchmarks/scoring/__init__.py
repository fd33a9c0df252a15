"""Scorers: annotated truth and stored predictions in, the figures of the benchmark out.

    RegionTruth, FoundRegions ──> coco.score, lvis.score, ... ──> Scores
    maps, one image at a time ──> Confusion.add, PanopticScorer.add ──> Scores
    Scores of several sets ──> suites.summarise ──> Scores

records             what scorers read and return: plain arrays
pairs, overlap      pairs of an image and a class; intersection and union of boxes and masks
engine              average precision of one class at a time, by faster-coco-eval
coco, lvis          AP as COCO defines it, for most benchmarks, and for federated annotations
cityscapes, openimages  AP of instances by Cityscapes' own rule; AP at IoU 0.5 with group boxes
semantic, panoptic  mean IoU and its relatives; panoptic quality
referring           expressions that mean one region: RefCOCO, RefCOCO+, RefCOCOg
phrases, phrasecut  recall of phrases (Flickr30k Entities); phrases whose answer is one mask
suites              mean and median over the data sets of a suite
benchmark           `ape-stream bench scores`: memory and time of LVIS scores

Figures are in percent. Every figure is the same for any order of images and any division into
shards: records of several shards are joined (`FoundRegions.join`), sums of several scorers added
(`merge`).
"""
