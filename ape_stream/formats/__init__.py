"""Annotation formats: what a run found, as the files that annotation tools read.

records            JobRecord, VideoRecord, FrameRecord, InstanceRecord: what writers are given
registry, writer   FORMATS, open_writer: every format by its name; what all writers share
convert            records files into formats, without a model
layouts            how the files of each format look
shapes             masks as polygons, as one ring, as flat maps
spool, folder      long lists in temporary files; a folder that gets its name when it is whole
"""
