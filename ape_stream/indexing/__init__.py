"""Indexing: what the network knows of videos before any word, written for `ape_stream.index`.

shelf        a whole run over clips: plan, workers, the database
job          IndexJob: what a worker does with a clip
base         what all parts share: manifest, head, reference words
keeping, survivors, packing  Keeper: which queries of a frame are kept, and what of the others
loops        the inner loops of these in C++ (csrc/)
tracking     RowTracker: objects through a video under any name
writing, parts  VideoWriter: the frames of one video, in parts; the files of a part
sink         IndexSink: the same of any run, as an output
payload      a frame as bytes of a shard, until its clip is whole
statistics   how large an index is, and how much of it is certain
"""
