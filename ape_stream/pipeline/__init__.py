"""One run: threads, order, shutdown and failures (decisions/0002).

pipeline          Pipeline: what users hold; opens, iterates and closes everything
stream            SourceStream: one source, read into a channel in a thread of its own
inference_thread  the one thread that calls the model and the trackers
tracking          StreamTracker: identities by the words of the prompts
attach, maps      what sinks are given of the run; which maps of every pixel are made
publisher         results through every sink, in the caller's thread
shared_perceiver  SharedPerceiver: one model for several pipelines of a process
resources, threads  open sources and sinks; threads that are joined with a time limit
run_state         outcome and failure of the run
asynchronous      the same results for `async for`
"""

from ape_stream.pipeline.pipeline import Outcome, Pipeline, Policy

__all__ = ["Outcome", "Pipeline", "Policy"]
