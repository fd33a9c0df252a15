"""The command that makes a text tower, with a made-up teacher and the names of the world."""

import sys
import zlib
from dataclasses import replace

import pytest
import torch
import typer
from torch.nn import functional
from typer.testing import CliRunner

from ape_model.loading import load_text_encoder
from ape_model.text.nano_tower import split_words
from ape_model.training.errors import TextTowerError
from ape_model.training.recipe import read_recipe
from ape_model.training.text_tower import run as text_run
from ape_model.training.text_tower.check import EmbeddingDiversity, check_diversity
from ape_model.training.text_tower.command import train_text
from ape_model.training.text_tower.distillation import DistilConfig
from ape_model.training.text_tower.run import train_tower
from ape_model.weights.registry import find_model
from ape_model.world import World

WIDTH = 144  # more axes than the tower has
TINY = DistilConfig(steps=12, batch=96, phrases=24)
app = typer.Typer(pretty_exceptions_enable=False)
app.command()(train_text)


class SumOfWords:
    """A teacher whose vector of a text is the sum of random vectors of its words."""

    def __init__(self, folder):
        assert folder.name == "teacher"

    def vocabulary(self):
        words = {w for name in World().names for w in split_words(name)}
        return [*sorted(words), *(f"{c}{d}x" for c in "abcdefghij" for d in "klmnopqrst")]

    def encode(self, texts):
        return functional.normalize(torch.stack([self._sum(text) for text in texts]), dim=-1)

    def _sum(self, text):
        seeds = [zlib.crc32(word.encode()) for word in split_words(text)]
        words = [torch.randn(WIDTH, generator=torch.Generator().manual_seed(k)) for k in seeds]
        return torch.stack(words).sum(0)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Folder of a teacher, and the world's names as a file of CLDR."""
    root = tmp_path_factory.mktemp("given")
    rows = "".join(
        f'<annotation cp="{k}">{name} | thing</annotation>'
        f'<annotation cp="{k}" type="tts">{name}</annotation>'
        for k, name in enumerate(World().names)
    )
    (root / "en.xml").write_text(
        f"<ldml><annotations>{rows}</annotations></ldml>", encoding="utf-8"
    )
    return root / "teacher", root / "en.xml"


@pytest.fixture
def fake_teacher(monkeypatch):
    monkeypatch.setattr(text_run, "Teacher", SumOfWords)


@pytest.mark.usefixtures("fake_teacher")
def test_a_tower_is_distilled_checked_and_read_again(given, tmp_path):
    lines = []
    out = tmp_path / "tower.safetensors"
    train_tower(*given, out, TINY, lines.append)
    assert any(line.startswith("text tower: effective rank") for line in lines)
    (tmp_path / "recipe.toml").write_text(
        "steps = 1\ntext = 'tower.safetensors'\n[[phase]]\nfirst = 0\n"
        "canvases = [{height = 32, width = 32, batch = 1}]"
    )
    recipe = read_recipe(tmp_path / "recipe.toml")
    files = find_model("nano")
    object.__setattr__(files, "text", tmp_path / recipe.loop.text)
    vectors = load_text_encoder(files, torch.device("cpu"), torch.float32).encode(["fox", "taxi"])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))


@pytest.mark.usefixtures("fake_teacher")
def test_the_same_seed_gives_the_same_tower(given, tmp_path):
    files = [tmp_path / name for name in ("one", "same", "other")]
    for file, seed in zip(files, (0, 0, 1), strict=True):
        train_tower(*given, file, replace(TINY, seed=seed), print)
    one, same, other = (file.read_bytes() for file in files)
    assert one == same
    assert one != other


@pytest.mark.usefixtures("fake_teacher")
def test_a_tower_whose_vectors_are_all_alike_is_refused_and_not_written(
    given, tmp_path, monkeypatch
):
    monkeypatch.setattr(text_run, "distil", collapsed(text_run.distil))
    out, lines = tmp_path / "tower.safetensors", []
    with pytest.raises(TextTowerError, match="does not distinguish names: effective rank"):
        train_tower(*given, out, TINY, lines.append)
    assert any(line.startswith("text tower: effective rank") for line in lines)
    assert not out.exists()


def collapsed(distil):
    """A distillation whose tower says nearly the same of everything."""

    def run(*given):
        tower = distil(*given)
        with torch.no_grad():
            tower.out.bias += 100.0
        return tower

    return run


@pytest.mark.parametrize(
    ("rank", "cosine", "passes"),
    [
        (20.0, 0.699, True),
        (19.9, 0.5, False),
        (40.0, 0.7, False),
        (float("nan"), 0.1, False),
        (40.0, float("nan"), False),
    ],
)
def test_the_limits_are_a_rank_of_twenty_and_a_cosine_below_seven_tenths(rank, cosine, passes):
    if passes:
        check_diversity(EmbeddingDiversity(rank, cosine))
    else:
        with pytest.raises(TextTowerError):
            check_diversity(EmbeddingDiversity(rank, cosine))


def one_line(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 2, done.output
    assert len(done.stderr.strip().splitlines()) == 1
    return done.stderr


def test_names_that_cannot_be_used_are_one_line(given, tmp_path):
    teacher, cldr = given
    (tmp_path / "empty.xml").write_text("<ldml/>")
    (tmp_path / "other.xml").write_text('<a><annotation cp="x" type="tts">quark</annotation></a>')
    cases = [
        (tmp_path, cldr, "modules.json is missing: give the folder of a sentence-transformers"),
        (teacher, tmp_path / "no.xml", "no.xml is no CLDR annotations file"),
        (teacher, tmp_path / "empty.xml", "empty.xml holds no names"),
        (teacher, tmp_path / "other.xml", "no name is a thing of the drawn world"),
    ]
    for folder, names, message in cases:
        assert message in one_line("--teacher", folder, "--cldr", names, "--out", tmp_path / "t")


def test_a_missing_extra_is_named(given, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    (tmp_path / "modules.json").write_text("[]")
    message = one_line("--teacher", tmp_path, "--cldr", given[1], "--out", tmp_path / "t")
    assert "pip install 'ape-stream[distil]'" in message
