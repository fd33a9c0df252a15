"""A drawn world with exact truth: scenes, videos and sentences, deterministic by seed.

The sprites are Noto Color Emoji (OFL-1.1, see `assets/LICENSE.world`), the names are CLDR's. Needs
numpy and OpenCV only; the network is not imported.
"""

from ape_model.world.scene import Instance, Scene
from ape_model.world.sentences import Phrase, SentenceScene
from ape_model.world.video import Film
from ape_model.world.words import WorldPrompt
from ape_model.world.world import World

__all__ = ["Film", "Instance", "Phrase", "Scene", "SentenceScene", "World", "WorldPrompt"]
