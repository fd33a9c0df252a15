"""Annotation formats: what a run found, as the files that annotation tools read.

records    JobRecord, VideoRecord, FrameRecord, InstanceRecord: what every writer is given
registry   FORMATS, open_writer: every format by its name
writer     what all writers share: numbers, names, checks, losses
folder     an output folder that gets its name when it is whole
spool      long lists of a JSON document, in a temporary file
layouts    how the files of each format look
"""
