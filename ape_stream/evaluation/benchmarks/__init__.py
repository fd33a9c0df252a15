"""The benchmarks of the paper (section 4).

task, registry  what a benchmark is, and all of them as tables (`data/`)
places, check   where its files lie on this machine, and what is wrong with them
readers         the data sets as they are given out: images, prompts, truth
miniature       a few tiny images of each in the same files
prediction      what a model finds, kept in shards
truth           a perceiver that answers with the annotations
scoring         annotated truth and stored predictions in, figures out
judging         figures and files from what is kept
published, compare  figures of the paper and its peers; several folders next to them
command, results, browse  `ape-stream eval list`, `check`, `run`, ...; `score`, `table`; `browse`
"""
