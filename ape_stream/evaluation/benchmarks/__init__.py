"""The benchmarks of the paper (section 4).

task, registry  what a benchmark is, and all of them as tables (`data/`)
scoring  annotated truth and stored predictions in, figures out
"""
