"""Work on a shelf of clips that survives any death of it.

clips       which clips: files, folders, patterns, lists; their names and digests
selection   which frames of each: a range of time, a stride
plan        everything that the results depend on; compared by every later run
shards      the results of a fixed number of frames, whole or not there
folder      what an output folder holds
job         Job: what is done with clips, given from outside; the messages of workers
reading     the frames of a clip, read ahead
worker      does one task: the same under every engine
child, processes, ray_pool   the engines: child processes, actors of Ray
state, schedule              how a job stands; which clip next, what to do about a worker that dies
"""
