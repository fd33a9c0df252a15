"""Predictions of a model on the images of tasks, kept in shards.

payload   what is kept of one image, as bytes
ask       what a perceiver is asked on an image, and what of its answer is kept
source    the images of a task as a source of frames
job       the same as a job of `ape_stream.batch`
manifest  what predictions depend on: digests of weights, prompts and annotations
run       a whole run: resume, parts for several machines, engines
"""
