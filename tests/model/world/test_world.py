"""The drawn world: exact truth, determinism, limits of overlap."""

import json
import time

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from ape_model.world import World
from ape_model.world.coco import export_coco
from ape_model.world.scene import Actor, Compositor, Region
from ape_model.world.sprites import CELL, Pose, cell_count, draw
from ape_model.world.textures import PAINTERS, TILE, texture, window
from ape_model.world.words import ASSETS
from ape_stream.masks import decode_rle, paste


@pytest.fixture(scope="module")
def world():
    return World()


def test_vocabulary_is_large_and_every_prompt_is_unique(world):
    assert world.things >= 120
    assert len(world.names) - world.things >= 12
    texts = [prompt.text for prompt in world.prompts]
    assert len(texts) >= 400
    assert len({text.lower() for text in texts}) == len(texts)
    assert set(world.names[world.things :]) == set(PAINTERS)


def test_truth_matrix_says_what_each_prompt_is_true_of(world):
    names = world.names
    assert world.truth.shape == (len(world.prompts), len(names))
    np.testing.assert_array_equal(world.truth[: len(names)], np.eye(len(names), dtype=bool))
    row = [prompt.text for prompt in world.prompts].index("apple")
    assert {names[c] for c in np.flatnonzero(world.truth[row])} == {"red apple", "green apple"}
    puppy = next(prompt for prompt in world.prompts if prompt.text == "puppy")
    assert puppy.class_ids == (names.index("dog face"),)


def test_assets_are_small_and_carry_their_licence():
    assert (ASSETS / "world.png").stat().st_size <= 2_000_000
    licence = (ASSETS / "LICENSE.world").read_text(encoding="utf-8")
    assert "SIL OPEN FONT LICENSE Version 1.1" in licence
    table = json.loads((ASSETS / "world.json").read_text(encoding="utf-8"))
    assert table["cell"] == CELL
    assert table["things"][-1]["cells"][1] <= cell_count()


def test_no_two_things_look_alike(world):
    """Every sprite of one class differs from every sprite of another at thumbnail size."""
    small = []
    for first, last in world.words.cells:
        for cell in range(first, last):
            patch = draw(Pose(cell, 20, 20, 24), (40, 40))
            canvas = np.zeros((40, 40, 4), np.float32)
            canvas[patch.window] = np.dstack([patch.colour, patch.alpha]) / 255
            small.append((first, canvas.ravel()))
    owners = np.array([owner for owner, _ in small])
    pixels = np.stack([flat for _, flat in small])
    squares = (pixels**2).sum(1)
    distance = np.sqrt(
        np.maximum(squares[:, None] + squares[None] - 2 * pixels @ pixels.T, 0) / pixels.shape[1]
    )
    distance[owners[:, None] == owners[None]] = np.inf
    assert distance.min() > 0.04


def test_same_seed_same_pixels_and_another_seed_others(world):
    one, again, other = world.scene(5), World().scene(5), world.scene(6)
    np.testing.assert_array_equal(one.image, again.image)
    np.testing.assert_array_equal(one.instance_map, again.instance_map)
    assert one.instances == again.instances
    assert (one.image != other.image).any()


@pytest.mark.parametrize("size", [(128, 128), (256, 256), (97, 331), (16, 16), (1080, 64)])
def test_truth_is_exact_in_every_size(world, size):
    for seed in range(5):
        scene = world.scene(seed, size)
        assert scene.image.shape == (*size, 3)
        assert scene.image.dtype == np.uint8
        assert scene.instance_map.shape == size
        assert scene.instance_map.dtype == np.int32
        everything = (*scene.instances, *scene.ignored)
        assert {i.id for i in everything} == set(np.unique(scene.instance_map).tolist())
        for instance in everything:
            mask = scene.mask(instance)
            rows, columns = np.nonzero(mask)
            box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            assert instance.box == box
            assert instance.area == mask.sum()
            assert instance.stuff == (instance.class_id >= world.things)
            assert (scene.class_map[mask] == instance.class_id).all()


def test_every_drawn_thing_shows_at_least_half(world):
    scenes = [world.scene(seed) for seed in range(120)]
    things = [i for scene in scenes for i in scene.instances if not i.stuff]
    assert len(things) > 300
    assert min(i.visible for i in things) >= 0.59
    assert not any(i for scene in scenes for i in scene.ignored if not i.stuff)


def test_things_are_equally_large_in_small_and_large_images(world):
    def typical(size):
        found = [i for seed in range(150) for i in world.scene(seed, size).instances]
        return np.median(
            [max(i.box[2] - i.box[0], i.box[3] - i.box[1]) for i in found if not i.stuff]
        )

    assert 0.8 < typical((128, 128)) / typical((256, 256)) < 1.2


def _plain_scene(world, size=(100, 100)):
    return Compositor(world.words, (Region(class_id=world.things, base=0),), size)


def test_a_paste_that_hides_too_much_is_refused_and_leaves_no_trace(world):
    compositor = _plain_scene(world)
    cell = world.words.cells[world.names.index("basketball")][0]
    assert compositor.add(Actor(2, world.names.index("basketball"), Pose(cell, 50, 50, 40)), 0.6)
    before, ids = compositor.image.copy(), compositor.ids.copy()
    assert not compositor.add(Actor(3, 0, Pose(cell, 55, 50, 40)), 0.6)
    np.testing.assert_array_equal(compositor.image, before)
    np.testing.assert_array_equal(compositor.ids, ids)
    assert compositor.add(Actor(3, 0, Pose(cell, 84, 50, 40)), 0.6)


def test_what_is_hidden_twice_adds_up(world):
    compositor = _plain_scene(world)
    cell = world.words.cells[world.names.index("basketball")][0]
    assert compositor.add(Actor(2, 0, Pose(cell, 50, 50, 40)), 0.6)
    assert compositor.add(Actor(3, 0, Pose(cell, 79, 50, 40)), 0.6)
    assert compositor.add(Actor(4, 0, Pose(cell, 21, 50, 40)), 0.6)  # two bites of 17 % each
    assert not compositor.add(Actor(5, 0, Pose(cell, 50, 79, 40)), 0.6)


def test_a_thing_mostly_outside_is_ignored_not_asked_for(world):
    compositor = _plain_scene(world)
    cell = world.words.cells[world.names.index("basketball")][0]
    assert compositor.add(Actor(2, 0, Pose(cell, 0 - 8, 50, 40)))
    scene = compositor.scene()
    assert [i.id for i in scene.ignored] == [2]
    assert 0.2 < scene.ignored[0].visible < 0.4


def test_flip_turn_and_light_do_what_they_say(world):
    cell = world.words.cells[world.names.index("crescent moon")][0]
    plain = draw(Pose(cell, 50, 50, 60), (100, 100))
    flipped = draw(Pose(cell, 50, 50, 60, flip=True), (100, 100))
    column = lambda patch: patch.x + np.nonzero(patch.mask)[1].mean()  # noqa: E731
    assert column(plain) - 50 == pytest.approx(50 - column(flipped), abs=1.0)
    assert abs(column(plain) - 50) > 2
    dark = draw(Pose(cell, 50, 50, 60, light=0.5), (100, 100))
    assert dark.colour[dark.mask].mean() == pytest.approx(
        plain.colour[plain.mask].mean() / 2, rel=0.02
    )
    turned = draw(Pose(cell, 50, 50, 60, angle=25), (100, 100))
    assert turned.full_area == pytest.approx(plain.full_area, rel=0.03)
    assert (dark.colour <= dark.alpha[..., None]).all()


@pytest.mark.parametrize("name", sorted(PAINTERS))
def test_textures_wrap_around_without_a_seam(name):
    tile = texture(name).astype(np.int32)
    seam = np.abs(tile[0] - tile[-1]).mean(), np.abs(tile[:, 0] - tile[:, -1]).mean()
    rows = np.abs(np.diff(tile, axis=0)).mean((1, 2)).max()
    columns = np.abs(np.diff(tile, axis=1)).mean((0, 2)).max()
    assert seam[0] <= 1.5 * rows + 2
    assert seam[1] <= 1.5 * columns + 2
    np.testing.assert_array_equal(window(name, TILE, -TILE, (8, 9)), texture(name)[:8, :9])


def test_textures_are_distinguished_by_their_colours():
    means = np.array([texture(name).mean((0, 1)) for name in PAINTERS])
    spread = np.array([texture(name).std((0, 1)) for name in PAINTERS])
    look = np.concatenate([means, spread], 1)
    distance = np.linalg.norm(look[:, None] - look[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert distance.min() > 15


def test_coco_export_reads_back_equal(world, tmp_path):
    path = export_coco(world, tmp_path, range(3, 6), (120, 160))
    coco = COCO(path)
    assert coco.getImgIds() == [3, 4, 5]
    scene = world.scene(4, (120, 160))
    image = cv2.imread(str(tmp_path / "images" / coco.loadImgs(4)[0]["file_name"]))
    np.testing.assert_array_equal(image, scene.image)
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=4, iscrowd=False))
    assert len(annotations) == len(scene.instances)
    for annotation, instance in zip(annotations, scene.instances, strict=True):
        assert coco.loadCats(annotation["category_id"])[0]["name"] == world.names[instance.class_id]
        found = paste(decode_rle(annotation["segmentation"]), (120, 160))
        np.testing.assert_array_equal(found, scene.mask(instance))
    captions = json.loads((tmp_path / "captions.json").read_text(encoding="utf-8"))
    thing = next(i for i in scene.instances if i.stuff)
    assert world.names[thing.class_id] in captions["annotations"][1]["caption"]


def test_rendering_is_fast_enough_to_feed_a_training(world):
    world.scene(0)
    start = time.process_time()
    for seed in range(50):
        world.scene(seed, (256, 256))
    # 100 a second on an idle core; a third of that still shows that nothing went quadratic.
    assert 50 / (time.process_time() - start) > 33


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: World(object_px=(30, 20)), "object_px"),
        (lambda: World(object_px=(2, 20)), "object_px"),
        (lambda: World(max_objects=0), "max_objects"),
        (lambda: World().scene(-1), "seed"),
        (lambda: World().scene(1, (8, 100)), "sides"),
        (lambda: World().sentence_scene(1, (64, 100)), "96x96 pixels or more"),
        (lambda: World().video(1, fps=0), "fps"),
        (lambda: World().video(1, cast=("gryphon",)), "gryphon"),
    ],
)
def test_values_out_of_range_are_refused_with_a_reason(make, says):
    with pytest.raises(ValueError, match=says):
        make()
