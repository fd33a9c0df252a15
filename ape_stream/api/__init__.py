"""The short way in: one call for a run, one for single images.

run     open: any sources, in a loop over results
given   what may be given to it, checked by shape
images  find, load, LoadedModel: single images, with the model kept between calls
"""

from ape_stream.api.images import LoadedModel, find, load
from ape_stream.api.run import open  # noqa: A004 (ape_stream.open reads as what it does)

__all__ = ["LoadedModel", "find", "load", "open"]
