"""A small index of made-up states, boxes and mask logits; and what a live run makes of them."""

import json
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch

from ape_model.inference.detect import Regions, clip_to_boxes
from ape_model.inference.selection import select
from ape_model.text.cache import EmbeddingSpace
from ape_model.text.embedding_file import EmbeddingFile
from ape_stream import masks
from ape_stream.index.alignment import Head
from ape_stream.index.database import Database
from ape_stream.index.layout import DATABASE, FORMAT, HEAD, MANIFEST, Manifest, PartInfo, Video
from ape_stream.indexing.keeping import Keep, Keeper, Reference
from ape_stream.indexing.parts import write_part
from ape_stream.types import Frame, Instances
from ape_stream.values.queries import FrameQueries

WIDTH = 16
TOWER = "ab" * 32
CELLS, FILLED, SIZE, MARGIN = (12, 16), (12.0, 16.0), (36, 48), 0.05
WORDS = ("cat", "dog", "sky", "red car", "pole", "house")


@dataclass
class Made:
    """What the network said of the frames of one video, and where it is on disk."""

    root: object
    bank: object
    head: Head
    states: np.ndarray  # (F, Q, C)
    boxes: np.ndarray  # (F, Q, 4) x1 y1 x2 y2
    logits: np.ndarray  # (F, Q, h, w)
    embeddings: np.ndarray  # (P, D) of WORDS
    tracks: np.ndarray  # (F, Q)


def made_head(rng, embeddings):
    """With a basis of the directions that `WORDS` lie in."""
    head = Head(
        weight=rng.standard_normal((WIDTH, WIDTH)).astype(np.float32),
        offset=rng.standard_normal(WIDTH).astype(np.float32) * np.float32(0.1),
        bias_weight=rng.standard_normal(WIDTH).astype(np.float32),
        bias_offset=np.float32(-4),
        scale=np.float32(0.5),
        basis=np.zeros((6, WIDTH), np.float32),
    )
    directions = np.linalg.svd(head.project(embeddings)[0], full_matrices=False)[2]
    return replace(head, basis=directions)


def write_bank(path, embeddings, tower=TOWER):
    space = EmbeddingSpace(tower, "float32", "eot")
    EmbeddingFile(WORDS, torch.from_numpy(embeddings), space, frozenset({"red car"})).save(path)


def made_index(
    folder, *, seed=0, frames=10, queries=12, keep=None, part_frames=4, name="clip", twins=False
):
    """Write an index.

    Args:
        folder: An empty folder.
        seed: Of all numbers.
        frames: How many.
        queries: Of each frame.
        keep: Best score of `WORDS` below which a query is dropped; None keeps all.
        part_frames: Frames of a part.
        name: Of the video.
        twins: Queries of one object have nearly the same state and box.
    """
    rng = np.random.default_rng(seed)
    embeddings = rng.standard_normal((len(WORDS), WIDTH)).astype(np.float32)
    head = made_head(rng, embeddings)
    objects = rng.standard_normal((queries // 2, WIDTH))
    kind = rng.integers(0, queries // 2, queries)  # two queries and more see one object
    drift = np.cumsum(rng.standard_normal((frames, queries, WIDTH)) * 0.05, axis=0)
    states = (objects[kind] * 2.2 + drift).astype(np.float32)
    centre = rng.uniform(0.2, 0.8, (queries // 2, 2))[kind]
    centre = centre + np.cumsum(rng.standard_normal((frames, queries, 2)) * 0.004, axis=0)
    half = rng.uniform(0.05, 0.3, (queries, 2))
    if twins:
        states = (objects[kind] * 0.9 + (states - objects[kind] * 2.2) * 0.2).astype(np.float32)
        half = half[kind]
    boxes = np.concatenate([centre - half, centre + half], axis=-1).clip(0, 1).astype(np.float32)
    logits = _blobs(rng, boxes)
    tracks = np.broadcast_to(np.where(np.arange(queries) % 5 == 4, 0, 1 + np.arange(queries)),
                             (frames, queries))  # fmt: skip
    made = Made(folder / "idx", folder / "bank.safetensors", head, states, boxes, logits,
                embeddings, tracks)  # fmt: skip
    write_bank(made.bank, embeddings)
    write_index(made, keep, part_frames, name)
    return made


def _blobs(rng, boxes):
    """(F, Q, h, w) positive around the centre of each box, and now and then outside of it."""
    h, w = CELLS
    y, x = (np.arange(h) + 0.5)[:, None] / h, (np.arange(w) + 0.5)[None] / w
    cx, cy = (boxes[..., 0] + boxes[..., 2]) / 2, (boxes[..., 1] + boxes[..., 3]) / 2
    rx, ry = np.diff(boxes[..., ::2])[..., 0] / 2, np.diff(boxes[..., 1::2])[..., 0] / 2
    far = ((x - cx[..., None, None]) / (rx[..., None, None] + 0.02)) ** 2
    far = far + ((y - cy[..., None, None]) / (ry[..., None, None] + 0.02)) ** 2
    noise = rng.standard_normal((*boxes.shape[:2], h, w))
    logits = 3 * (1 - far) + noise
    logits[::3, ::7] = -5  # queries without a pixel
    return np.clip(np.round(logits * 16), -127, 127).astype(np.float32) / np.float32(16)


def manifest_of(made, keep, **changes):
    values = {
        "format": FORMAT,
        "model": "nano",
        "weights": "cd" * 32,
        "head": made.head.digest,
        "text_tower": TOWER,
        "text_dtype": "float32",
        "text_pooling": "eot",
        "resizing": "256",
        "width": WIDTH,
        "dtype": "float32",
        "threshold": 0.5,
        "mask_margin": MARGIN,
        "per_prompt": 100,
        "stuff": ("sky",),
        "keep_score": keep,
        "keep_rows": None,
        "reference": len(WORDS),
        "reference_digest": "",
        "version": "0.1.0",
        "names": ("red car",),
    }
    return Manifest(**{**values, **changes})


def write_index(made, keep, part_frames, name, **changes):
    manifest = manifest_of(made, keep, **changes)
    made.root.mkdir()
    (made.root / MANIFEST).write_text(json.dumps(manifest.to_json()))
    made.head.save(made.root / HEAD)
    vectors, biases = made.head.project(made.embeddings)
    with Database(made.root / DATABASE, write=True) as database:
        frames = len(made.states)
        video = Video(1, name, "clip.mp4", SIZE[1], SIZE[0], (1, 90_000), (10, 1), frames, None)
        database.add([video])
        for number, first in enumerate(range(0, frames, part_frames)):
            own = range(first, min(first + part_frames, frames))
            rows, tracks = zip(*(_frame(made, f, keep, vectors, biases) for f in own), strict=True)
            path = f"parts/{name}/{number:06d}"
            sums = write_part(made.root, path, rows, tracks, manifest.identity)
            kept = sum(len(row.query) for row in rows)
            database.add([PartInfo(
                video=1, number=number, path=path, frames=len(own), rows=kept,
                dropped=len(own) * made.states.shape[1] - kept,
                start_s=own[0] / 10, end_s=own[-1] / 10, **sums,
            )])  # fmt: skip


def _frame(made, f, keep, vectors, biases):
    steps = (made.logits[f] * 16).astype(np.int8)
    queries = FrameQueries(made.states[f], made.boxes[f], CELLS, FILLED,
                           lambda numbers: steps[numbers], Facts)  # fmt: skip
    frame = Frame(
        np.zeros((*SIZE, 3), np.uint8), f, f / 10, pts=f * 9000, time_base=Fraction(1, 90_000)
    )
    keeper = Keeper(made.head, Reference(WORDS, vectors, biases), Keep(keep, None))
    row = keeper.frame(frame, queries)
    return row, made.tracks[f, row.query].astype(np.int64)


class Facts:
    mask_margin = MARGIN


def live(made, words, thresholds, stuff=("sky",), frames=None):
    """What the live code makes of all queries: `Instances` of each frame."""
    ids = [WORDS.index(word) for word in words]
    vectors, biases = made.head.project(made.embeddings[ids])
    flags = np.array([word in stuff for word in words])
    return [
        _live_frame(made, f, vectors, biases, np.float32(thresholds), flags)
        for f in (range(len(made.states)) if frames is None else frames)
    ]


def _live_frame(made, f, vectors, biases, thresholds, stuff):
    logits = torch.from_numpy(made.head.logits(made.states[f], vectors, biases))[None]
    low, high = made.boxes[f, :, :2], made.boxes[f, :, 2:]
    boxes = torch.from_numpy(np.concatenate([(low + high) / 2, high - low], axis=1))[None]
    ((chosen,),) = select([(logits, boxes, torch.from_numpy(thresholds))], per_prompt=100)
    exact = torch.from_numpy(made.boxes[f])[chosen.queries]  # as the index has them
    regions = Regions(exact, chosen.scores, chosen.prompts,
                      torch.from_numpy(made.logits[f])[chosen.queries], (1.0, 1.0))  # fmt: skip
    regions = clip_to_boxes(regions, MARGIN, torch.from_numpy(stuff)[chosen.prompts])
    cropped = [masks.from_logits(one, SIZE, FILLED) for one in regions.mask_logits.numpy()]
    kept = [k for k, mask in enumerate(cropped) if mask.bitmap.size]
    own = tuple(cropped[k] for k in kept)
    found = Instances(
        boxes=masks.boxes(own), scores=regions.scores.numpy()[kept],
        prompt_ids=regions.prompts.numpy()[kept], masks=own, size=SIZE,
    )  # fmt: skip
    return masks.suppress_duplicates(masks.merge_stuff(found, stuff))


def same_instances(a, b):
    return (
        np.array_equal(a.boxes, b.boxes)
        and np.array_equal(a.scores, b.scores)
        and np.array_equal(a.prompt_ids, b.prompt_ids)
        and len(a) == len(b)
        and all(
            (x.x, x.y) == (y.x, y.y) and np.array_equal(x.bitmap, y.bitmap)
            for x, y in zip(a.masks, b.masks, strict=True)
        )
    )
