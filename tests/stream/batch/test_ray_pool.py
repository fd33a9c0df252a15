"""Ray's actors make the same files as child processes; skipped where Ray is not installed."""

import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from ape_stream.batch.ray_pool import RayPool
from ape_stream.errors import PipelineError

sys.path.insert(0, str(Path(__file__).parents[1] / "annotation"))
from shelves import annotate, final_files, lines_of, summary_of, write


@pytest.mark.slow
# Of Ray's own processes, where its first start was too slow.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_actors_make_the_same_files_and_survive_a_clip_that_kills_them(folder):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ape-stream[ray]'")
    write(folder / "in" / "a.mp4", frames=300)
    write(folder / "in" / "b.mp4", frames=20)
    assert annotate("in", out="plain") == 0
    assert annotate("in", "--engine", "ray", "--actors", "2") == 0
    assert final_files("out") == final_files("plain")
    assert annotate("fake://3/exits", "in", "--engine", "ray", out="poisoned") == 3
    (failed,) = lines_of("poisoned/failed.jsonl")
    assert (failed["clip"], failed["attempts"]) == ("3-exits", 3)


class StandIn:
    """The part of Ray's interface that is used, with actors in this process."""

    def __init__(self, late=0):
        self.placed = []
        self.lost = self.starts = 0
        self.late = late

    def init(self, **given):
        self.address = given["address"]
        self.starts += 1
        if self.starts <= self.late:
            raise TimeoutError("the raylet did not start")

    def cluster_resources(self):
        return {"CPU": 2.0, "GPU": 1.0}

    def remote(self, **needs):
        self.needs = needs
        return lambda kind: SimpleNamespace(remote=lambda *given: self.place(kind(*given)))

    def place(self, actor):
        self.placed.append(actor)

        def run(task):
            if len(self.placed) == 1 and task["kind"] == "find":
                self.lost += 1
                raise ConnectionError("the machine of this actor is gone")
            yield from actor.run(task)

        options = lambda num_returns: SimpleNamespace(remote=run)  # noqa: ARG005, E731
        ready = SimpleNamespace(remote=actor.ready)
        return SimpleNamespace(run=SimpleNamespace(options=options), ready=ready)

    def get(self, event):
        return event

    def kill(self, actor):
        pass

    def shutdown(self):
        self.over = True


def test_an_actor_that_is_lost_is_replaced_and_counts_as_an_attempt(folder, monkeypatch, capsys):
    ray = StandIn()
    monkeypatch.setitem(sys.modules, "ray", ray)
    write(folder / "in" / "a.mp4", frames=20)
    words = ("--engine", "ray", "--address", "head:6379", "--json")
    assert annotate("in", *words) == 0
    assert "its worker ended (ConnectionError); attempt 1 of 3" in capsys.readouterr().out
    assert summary_of()["words"]["cup"]["regions"] == 20
    assert (ray.address, ray.lost, len(ray.placed), ray.over) == ("head:6379", 1, 2, True)
    # None of Ray's own retries, which have no end.
    assert ray.needs == {
        "num_cpus": 1, "num_gpus": 1, "max_restarts": 0, "max_task_retries": 0
    }  # fmt: skip


@pytest.mark.parametrize(("late", "address", "starts"), [(2, "", 3), (3, "", 3), (1, "head:1", 1)])
def test_only_a_cluster_of_ones_own_is_started_again(monkeypatch, late, address, starts):
    ray = StandIn(late)
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(PipelineError, match="did not start") if starts <= late else nullcontext():
        RayPool((), None, print, address=address or None)
    assert ray.starts == starts


def test_without_ray_the_extra_is_named(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    write(folder / "a.mp4", frames=3)
    assert annotate("a.mp4", "--engine", "ray") == 2
    assert "pip install 'ape-stream[ray]'" in capsys.readouterr().err
