"""Trackers: regions of one stream get lasting identities.

iou      IouTracker: ours, by overlap of boxes or masks
adapter  TrackersTracker: SORT, ByteTrack, OC-SORT and C-BIoU of the package `trackers`
"""
