"""Ask later: what the network knows of videos before any word, on disk, and how it is read.

alignment    Head, fixed_point: exact scores of states and texts, as the network computes them
layout       Manifest, Video, PartInfo, Track: what an index holds; names of its files
part         Part: the rows and frames of 1,024 frames of one clip, mapped into memory
bounds       Spheres: the highest score that a dropped query can have, for any text
cells        mask logits, packed to the cells that decide a pixel, and back
levels       Levels: small bounds of many states, by segments that follow one object
scan         Scanner: every row that reaches a threshold, exactly; benchmark: `bench index`
database     videos, parts and tracks in SQLite
store        Store, open_store: an index as a whole; what is damaged is left out by name

`ape_stream.indexing` writes indexes (a job of `ape_stream.batch`, or an output of any run).

    store = open_store(Path("IDX"))
    vectors, biases = store.head.project(embeddings)     # (P, D) -> (P, C), (P,)
    for part in store.parts_between(60.0, 120.0):
        logits = store.head.logits(part.states(), vectors, biases)     # (N, P), exact
        bounds = part.upper_bounds(vectors, biases)          # (F, P), what was dropped at most
        mask = part.mask(row, stuff=False)       # as a live run has it
"""
