"""The benchmarks of the paper (section 4).

task, registry  what a benchmark is, and all of them as tables (`data/`)
places          where its files lie on this machine
scoring         annotated truth and stored predictions in, figures out
published       figures of the paper and its peers, each with its source
compare         scores of several folders, and published figures, next to each other
command         `ape-stream eval list`, `table`
"""
