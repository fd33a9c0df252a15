"""Data sets of labelled regions, as annotation tools write them: every row checked.

instances  InstanceData and its parts: what all readers return
read       read_instances: which reader a path goes to
shapes     code, pixels and box of a region
rows       rows of a file with their position for messages; images on disk
coco       COCO instances (JSON); the checks that all readers share
voc        Pascal VOC: a folder of XML
yolo       YOLO: data.yaml, or folders of images and labels
"""
