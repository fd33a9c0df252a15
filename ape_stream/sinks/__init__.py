"""Where results go.

file_sink  the base of all that write one file
conflicts  outputs against sources and each other, before anything is opened
one_stream  passes the results of one stream to a sink
coco, jsonl, labels, panoptic, sheet, video    one kind of output each
window, screen    a window with keys; how large it may be
recover    whole files from what a run left that was cut short
"""
