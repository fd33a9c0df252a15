"""Videos: lasting ids, exact masks, limited overlap, any frame at any time."""

import numpy as np
import pytest
from typer.testing import CliRunner

from ape_model.world import World
from ape_model.world.command import app


@pytest.fixture(scope="module")
def world():
    return World()


def _things(scene):
    return [i for i in (*scene.instances, *scene.ignored) if not i.stuff]


def test_any_frame_can_be_drawn_at_any_time(world):
    video = world.video(3, (120, 160))
    frames = [video.scene(k) for k in range(6)]
    np.testing.assert_array_equal(World().video(3, (120, 160)).scene(5).image, frames[5].image)
    assert (frames[0].image != frames[5].image).any()
    assert video.scene(1_000_000).image.shape == (120, 160, 3)


def test_speed_is_per_second_at_any_frame_rate(world):
    slow, fast = world.video(3, (120, 160), fps=10), world.video(3, (120, 160), fps=30)
    np.testing.assert_array_equal(slow.scene(7).image, fast.scene(21).image)


def test_one_id_is_one_thing_that_moves_a_little_per_frame(world):
    for seed in range(2):
        video = world.video(seed, (120, 160))
        seen = {}
        for k in range(0, 750, 3):
            for thing in _things(video.scene(k)):
                centre = np.array([thing.box[0] + thing.box[2], thing.box[1] + thing.box[3]]) / 2
                if thing.id in seen:
                    before, class_id, at = seen[thing.id]
                    assert class_id == thing.class_id
                    if k - before == 3:
                        assert np.linalg.norm(centre - at) < 30
                seen[thing.id] = k, thing.class_id, centre
        assert len(seen) >= 5  # things leave, and others come


def test_an_id_that_left_never_comes_back(world):
    video = world.video(1, (240, 320))
    last = {}
    for k in range(0, 1500, 5):
        for thing in _things(video.scene(k)):
            assert k - last.get(thing.id, k) <= 15 or thing.id not in last
            last[thing.id] = k


def test_without_full_occlusion_every_thing_inside_the_frame_stays_half_visible(world):
    lowest = 1.0
    for seed in range(6):
        video = world.video(seed, (240, 320))
        for k in range(0, 400, 10):
            inside = [t for t in _things(video.scene(k)) if t.box[0] > 0 and t.box[2] < 320]
            inside = [t for t in inside if t.box[1] > 0 and t.box[3] < 240]
            lowest = min([lowest, *(t.visible for t in inside)])
    assert 0.5 <= lowest < 1.0  # partial overlaps do occur


def test_full_occlusion_hides_some_things_almost_entirely(world):
    lowest = 1.0
    for seed in range(6):
        video = world.video(seed, (240, 320), full_occlusion=True)
        for k in range(0, 400, 10):
            inside = [t for t in _things(video.scene(k)) if t.box[0] > 0 and t.box[2] < 320]
            lowest = min([lowest, *(t.visible for t in inside)])
    assert lowest < 0.3


def test_a_cast_is_all_that_appears(world):
    video = world.video(2, (120, 160), cast=("red apple", "dog face"))
    shown = {world.names[t.class_id] for k in range(0, 900, 30) for t in _things(video.scene(k))}
    assert shown == {"red apple", "dog face"}


def test_masks_are_disjoint_and_boxes_exact(world):
    scene = world.video(4, (120, 160)).scene(100)
    for thing in (*scene.instances, *scene.ignored):
        rows, columns = np.nonzero(scene.instance_map == thing.id)
        assert thing.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_command_writes_a_data_set_and_a_video(tmp_path):
    run = CliRunner().invoke
    done = run(app, ["export", str(tmp_path / "set"), "--scenes", "2", "--size", "96x64"])
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "set" / "images").iterdir())) == 2
    done = run(app, ["video", str(tmp_path / "video"), "--frames", "3", "--size", "96x64"])
    assert done.exit_code == 0, done.output
    assert max(p.name for p in (tmp_path / "video").iterdir()) == "000002.png"


@pytest.mark.parametrize("arguments", [["--size", "big"], ["--size", "8x8"], ["--fps", "-1"]])
def test_command_refuses_bad_values_in_one_line(tmp_path, arguments):
    done = CliRunner().invoke(app, ["video", str(tmp_path / "x"), *arguments])
    assert done.exit_code == 2
    assert "Traceback" not in done.output
