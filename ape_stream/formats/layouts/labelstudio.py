"""Label Studio's predictions, https://labelstud.io/guide/predictions.

`tasks.json` has a task for each frame with brush masks, which hold everything, and rectangles for
regions without masks; `video_tasks.json`
one for each video with boxes of tracks, as Label Studio has no masks in video. `config.xml` and
`video_config.xml` are the labelling interfaces that both need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ape_stream import masks
from ape_stream.formats.layouts.cvat import element
from ape_stream.formats.spool import GroupSpool, ListSpool, to_json
from ape_stream.formats.writer import Layout
from ape_stream.types import Mask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ape_stream.formats.records import JobRecord, VideoRecord
    from ape_stream.formats.writer import Image, Losses, Region

__all__ = ["LabelStudio", "brush"]

_LOCAL = "/data/local-files/?d="
"""Where Label Studio serves files of its own disk."""


class LabelStudio(Layout):
    """The layout of Label Studio."""

    def __init__(self, folder: Path, job: JobRecord, losses: Losses) -> None:
        super().__init__(folder, job, losses)
        self._has_boxes = False
        self._tasks = self.keep(ListSpool(folder))
        self._video_tasks = self.keep(ListSpool(folder))
        self._model = {} if job.model is None else {"model_version": job.model}

    def begin_video(self, video: VideoRecord, folder: str) -> None:
        """Start the tracks of a video."""
        del folder
        self._video, self._position, self._last = video, 0, -1
        self._tracks = self.keep(GroupSpool(self.folder))

    def frame(self, image: Image) -> None:
        """Spool the frame's task, and what it adds to each track."""
        record = image.record
        result = [_found(image, region) for region in image.regions]
        self._has_boxes |= any(region.mask is None for region in image.regions)
        prediction = {**self._model, "result": result}
        data = {"image": _LOCAL + record.image}
        self._tasks.add({"id": image.id, "data": data, "predictions": [prediction]})
        for region in image.regions:
            if (track_id := region.record.track_id) is not None:
                box = to_json(_box(image, region))[1:-1]
                self._tracks.add((track_id, region.category_id), self._position, box)
            else:
                self.losses.add("regions without a track (in the tasks of videos)")
        self._position += 1
        self._last = record.frame

    def end_video(self) -> None:
        """Write the video's task."""
        self._video_tasks.add_parts(self._video_task())
        self._tracks.close()

    def _video_task(self) -> Iterator[str]:
        video = self._video
        frames = video.frames or self._last + 1
        about: dict[str, Any] = {"framesCount": frames}
        if video.rate is not None:
            about["duration"] = round(frames * video.rate[1] / video.rate[0], 6)
        data = to_json({"video": _LOCAL + (video.source or video.name)})
        model = to_json({**self._model, "result": 0})
        yield f'{{"data": {data}, "predictions": [{model[:-2]}['
        for number, key in enumerate(self._tracks):
            label = self.job.prompts[key[1] - 1].text
            head = {"id": f"t{key[0]}-{key[1]}", "type": "videorectangle", "from_name": "box"}
            value = to_json({**about, "labels": [label], "sequence": 0})
            yield ("" if number == 0 else ",\n") + to_json({**head, "to_name": "video"})[:-1]
            yield f', "value": {value[:-2]}['
            yield from self._sequence(key)
            yield "]}}"
        yield "]}]}"

    def _sequence(self, key: tuple[int, ...]) -> Iterator[str]:
        """The boxes of a track; Label Studio fills gaps after one that is `enabled`."""
        waiting: tuple[int, str] | None = None
        for position, box in self._tracks.items(key):
            if waiting is not None:
                goes_on = to_json(position == waiting[0] + 1)
                yield f'{{{waiting[1]}, "enabled": {goes_on}}}, '
            waiting = position, box
        if waiting is not None:
            yield f'{{{waiting[1]}, "enabled": false}}'

    def finish(self) -> None:
        """Write both files and their interfaces."""
        for name, tasks in (("tasks.json", self._tasks), ("video_tasks.json", self._video_tasks)):
            with self.file(name).open("w", encoding="utf-8") as stream:
                tasks.copy_to(stream)
        labels = "\n" + "".join(element("Label", {"value": p.text}) for p in self.job.prompts)
        image = element("Image", {"name": "image", "value": "$image"})
        tools = element("BrushLabels", {"name": "label", "toName": "image"}, labels)
        if self._has_boxes:
            tools += element("RectangleLabels", {"name": "box", "toName": "image"}, labels)
        self.write_text("config.xml", element("View", {}, f"\n{image}{tools}"))
        video = element("Video", {"name": "video", "value": "$video"})
        named = element("Labels", {"name": "videoLabels", "toName": "video"}, labels)
        boxes = element("VideoRectangle", {"name": "box", "toName": "video"})
        self.write_text("video_config.xml", element("View", {}, f"\n{video}{named}{boxes}"))


def _found(image: Image, region: Region) -> dict[str, Any]:
    """A region of an image: a brush stroke, or a rectangle where there is no mask."""
    height, width = image.record.size
    if region.mask is None:
        kind, tool, value = "rectanglelabels", "box", _rectangle(image, region)
    else:
        kind, tool = "brushlabels", "label"
        value = {"format": "rle", "rle": list(brush(region.mask, image.record.size))}
    return {
        "id": f"r{region.id}",
        "type": kind,
        "from_name": tool,
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": region.record.score,
        "value": {**value, kind: [region.record.prompt]},
        "meta": {"track_id": region.record.track_id},
    }


def _box(image: Image, region: Region) -> dict[str, Any]:
    """A box of a video; frames count from 1."""
    about = {"frame": image.record.frame + 1, "time": image.record.time_s}
    return {**about, **_rectangle(image, region)}


def _rectangle(image: Image, region: Region) -> dict[str, Any]:
    """A box in per cent of the frame."""
    height, width = image.record.size
    x, y, w, h = region.xywh
    return {
        "x": round(100 * x / width, 6),
        "y": round(100 * y / height, 6),
        "width": round(100 * w / width, 6),
        "height": round(100 * h / height, 6),
        "rotation": 0,
    }


def brush(mask: Mask, size: tuple[int, int]) -> bytes:
    """A mask as Label Studio's brush stroke: `@thi.ng/rle-pack` of its RGBA pixels.

    A head of 32 bits for the number of values, 5 for the word size - 1 and 4 x 4 for the sizes of
    counts - 1; then for each run a 1, two bits for the size of its count, the count - 1 and the
    value.
    """
    turned = Mask(np.ascontiguousarray(mask.bitmap.T), mask.y, mask.x)
    runs = masks.frame_run_lengths(turned, (size[1], size[0])).tolist()  # along the rows
    bits = [f"{4 * size[0] * size[1]:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"]
    for index, pixels in enumerate(runs):
        value = "1" * 8 if index % 2 else "0" * 8
        left = 4 * pixels  # the four channels of a pixel are alike
        while left:
            part = min(left, 2**16)
            bits.append(_count(part - 1) + value)
            left -= part
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def _count(count: int) -> str:
    if count < 8:
        return f"100{count:03b}"
    if count < 16:
        return f"101{count:04b}"
    return f"110{count:08b}" if count < 256 else f"111{count:016b}"
