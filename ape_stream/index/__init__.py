"""Ask later: what the network knows of videos before any word, on disk, and how it is read.

alignment      Head, fixed_point: exact scores of states and texts, as the network computes them
layout, store, database  what an index holds; Store: as a whole, without what is damaged
part           Part: the rows and frames of 1,024 frames of one clip, mapped into memory
dropped        what is known of dropped queries, and what they may add to an answer
cells, blocks  masks, packed and back; compressed pieces with checksums
levels, levels_file, benchmark  Levels: small bounds of many states, by segments; `bench index`
scan, kernels  Scanner: every row that reaches a threshold, exactly; its loops in C++ (csrc/)
selection      which of these become regions, as in a live run; masks only where they decide
vectors, similar  embeddings of words, without torch where they are known; more like this
asking, answer  Index, open: words asked of an index; Answer: frames, tracks, what is not certain

`ape_stream.indexing` writes indexes (a job of `ape_stream.batch`, or an output of any run).

    index = ape_stream.index.open("IDX")
    answer = index.ask(["fire engine", "ladder"], threshold=0.4)
    for track in answer.tracks:
        print(track.prompt.text, track.video.name, track.ranges, track.scores.max())
    print(answer.exact, answer.recheck)  # whether it equals a full run; where it may not
"""

from ape_stream.index.answer import Answer, AnswerTrack, FoundFrame, Uncertain
from ape_stream.index.asking import Index
from ape_stream.index.asking import open_index as open  # noqa: A004 (reads as what it does)

__all__ = ["Answer", "AnswerTrack", "FoundFrame", "Index", "Uncertain", "open"]
