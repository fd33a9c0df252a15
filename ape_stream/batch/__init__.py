"""Work on a shelf of clips that survives any death of it.

clips       which clips: files, folders, patterns, lists; their names and digests
selection   which frames of each: a range of time, a stride
plan        everything that the results depend on; compared by every later run
shards      the results of a fixed number of frames, whole or not there
folder, job                  what an output folder holds; Job: what is done with clips
reading     the frames of a clip, read ahead
worker, memory              does one task, the same under every engine; its memory stays flat
workers, child, processes, ray_pool   Engine: child processes, or actors of Ray
run, schedule                one run of a job; which task next, what to do about a death
state, waiting               how clips stand; which one is next
"""
