"""A drawn world with exact truth: scenes, videos and sentences, deterministic by seed.

    world       World: scenes, sentence scenes and videos by seed
    scene       Scene and Instance: an image with its truth; Compositor draws one
    video       VideoScene: a moving scene, drawn at any time
    sentences   phrases of size and position that fit one region of a scene
    sprites, textures     how things and stuff are drawn
    words, coco, command  the vocabulary, export as COCO, `ape-stream world`
    build_atlas           makes the sprites in `assets`, for developers

Sprites: Noto Color Emoji (OFL-1.1, `assets/LICENSE.world`). Needs numpy and OpenCV, not torch.
"""

from ape_model.world.scene import Instance, Scene
from ape_model.world.sentences import Phrase, SentenceScene
from ape_model.world.video import VideoScene
from ape_model.world.words import WorldPrompt
from ape_model.world.world import World

Film = VideoScene
"""Former name of `VideoScene`, kept for one release."""

__all__ = [
    "Film",
    "Instance",
    "Phrase",
    "Scene",
    "SentenceScene",
    "VideoScene",
    "World",
    "WorldPrompt",
]
