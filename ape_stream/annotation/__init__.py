"""`ape-stream annotate` for files: clip by clip, with final files that survive any kill.

job       AnnotateJob: the model on frames, then tracks and files of a clip; runs in workers
records   frames as lines of the shards, and back
first_sightings   track ids, from the first frame of a track on
outputs   the final files of a clip
strips    a few small images of every track, for the report
shelf     the whole run: plan, workers, final files of the job
summary   what was found in all clips
report    the page to review tracks on
review    what was rejected there
"""
