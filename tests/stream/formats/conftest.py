import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode: the helper module of the tests

from annotated import FLAT, JOB, VIDEOS, write_to

from ape_stream.formats.registry import FORMATS, open_writer


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """All formats of all videos, once: name to folder, and the writers by name."""
    folder = tmp_path_factory.mktemp("formats")
    writers = {}
    for name in FORMATS:
        with open_writer(name, folder, JOB) as writers[name]:
            write_to(writers[name])
    return folder, writers


@pytest.fixture(scope="session")
def flat(tmp_path_factory):
    """The video `b` without its overlapping frame, in formats that have one value a pixel."""
    folder = tmp_path_factory.mktemp("flat")
    for name in ("coco-panoptic", "masks", "mot", "mots", "voc", "ytvis"):
        with open_writer(name, folder, JOB) as writer:
            write_to(writer, VIDEOS[1:], FLAT)
    return folder
