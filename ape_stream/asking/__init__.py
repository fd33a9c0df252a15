"""The command `ask`: answers of an index as text, JSON, files of all formats, images and clips.

command, options  `ape-stream ask`
answering  from its options to an answer
view      an answer as lines to read
videos    frames of the indexed videos, where these are at hand
recheck   the network on just the frames that are not certain
export    records, annotation formats, saved frames, a contact sheet, clips
"""
