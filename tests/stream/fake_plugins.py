"""A distribution of fakes that can be put on any interpreter's path."""

from pathlib import Path

MODULE = '''
import json, os, threading, time
from ape_stream.errors import PromptError, SinkError, SourceError, TruncatedError
from ape_stream.testing import CollectSink, ListSource, OraclePerceiver, frames

class Endless(ListSource):
    frame_count = None

def source(spec, *, name, stream: int = 0):
    """fake://5, fake://5/cut (or broken, exits, hangs), fake://endless, fake://film (a file)"""
    what, _, end = spec.removeprefix("fake://").partition("/")
    if what in {"endless", "film"}:
        live = what == "endless"
        return Endless(frames(10**9, stream=name), name=name, live=live, period_s=0.01)
    if end in {"exits", "hangs"}:
        return ListSource(poisoned(int(what), name, end), name=name)
    if what == "dead":
        raise SourceError("camera fake does not answer")
    errors = {
        "cut": TruncatedError(f"{name} ends early: {what} of 30 frames were read"),
        "broken": SourceError("cable pulled"),
    }
    slow = 0.05 if end == "broken" else 0.0  # its first frames go through before it fails
    return ListSource(
        list(frames(int(what), stream=name)), name=name, error=errors.get(end), period_s=slow
    )

def poisoned(count, name, end):
    yield from frames(count, stream=name)
    if end == "exits":
        os._exit(7)
    time.sleep(10**6)

class Sink(CollectSink):
    def __init__(self, spec, *, full_at: int = -1):
        super().__init__()
        self.path, self.full_at, self.count = spec.removeprefix("fake:"), full_at, 0
    def __enter__(self):
        self.file = open(self.path, "w")
        return self
    def write(self, result):
        if self.count == self.full_at:
            raise SinkError(f"cannot write {self.path}: No space left on device")
        self.count += 1
        self.file.write(f"{result.frame.stream} {result.frame.index} {len(result.instances)}\\\\n")
        self.file.flush()
    def __exit__(self, *_):
        self.file.write("closed\\\\n")
        self.file.close()

class Model(OraclePerceiver):
    def __init__(
        self, *, model: str = "nano", device: str = "auto", canvas: int = 0, dtype: str = ""
    ):
        super().__init__()
        self.given = (model, device, canvas, dtype)
        if model == "gone":
            raise ValueError("no model is called 'gone'")
    def prepare(self, prompts):
        if "unreadable" in prompts.texts:
            raise PromptError("'unreadable' cannot be read by this model")
        super().prepare(prompts)

def greet(name: str = "you") -> None:
    """Say hello."""
    print(f"hello {name}")

def lines():
    return [("fake part", "works")]

def ill():
    raise RuntimeError("no driver")
'''.replace("\\\\n", "\\n")

ENTRY_POINTS = """
[ape_stream.sources]
fake = ape_fakes:source
[ape_stream.sinks]
fake = ape_fakes:Sink
[ape_stream.perceivers]
fake = ape_fakes:Model
[ape_stream.commands]
greet = ape_fakes:greet
heavy = ape_heavy:app
[ape_stream.doctor]
fake = ape_fakes:lines
ill = ape_fakes:ill
"""


def install(folder: Path) -> Path:
    """Write the distribution into a folder, to be put on `sys.path`."""
    (folder / "ape_fakes.py").write_text(MODULE)
    (folder / "ape_heavy.py").write_text('"""`ape-stream heavy`: weighs a ton."""\n1 / 0\n')
    info = folder / "ape_fakes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ape-fakes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "fake.toml").write_text('prompts = ["cup"]\nmodel = { plugin = "fake" }\n')
    return folder
