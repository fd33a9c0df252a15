"""The command that makes a text tower: with a teacher of random weights, and names of the world."""

from dataclasses import replace

import pytest
import torch
import typer
from safetensors.torch import save_file
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

WIDTH = 144  # twelve heads, and more axes than the tower has
TINY = DistilConfig(steps=12, batch=96, phrases=24)
app = typer.Typer(pretty_exceptions_enable=False)
app.command()(train_text)


def random_teacher(folder):
    """A MiniLM of six narrow layers that nobody has trained."""
    generator = torch.Generator().manual_seed(0)
    words = {w for name in World().names for w in split_words(name)}
    pieces = ["[PAD]", *(f"[unused{k}]" for k in range(99)), "[UNK]", "[CLS]", "[SEP]"]
    pieces += [*sorted(words), *(f"{c}{d}x" for c in "abcdefghij" for d in "klmnopqrst")]
    shapes = {"embeddings.word_embeddings": (len(pieces), WIDTH)}
    shapes |= {"embeddings.position_embeddings": (64, WIDTH)}
    shapes |= {"embeddings.token_type_embeddings": (2, WIDTH)}
    for k in range(6):
        for part in ("query", "key", "value"):
            shapes[f"encoder.layer.{k}.attention.self.{part}"] = (WIDTH, WIDTH)
        shapes[f"encoder.layer.{k}.attention.output.dense"] = (WIDTH, WIDTH)
        shapes[f"encoder.layer.{k}.intermediate.dense"] = (16, WIDTH)
        shapes[f"encoder.layer.{k}.output.dense"] = (WIDTH, 16)
    # Words speak loudest, so that a text is about the sum of its words.
    tensors = {
        f"{n}.weight": (1.0 if "word" in n else 0.02) * torch.randn(s, generator=generator)
        for n, s in shapes.items()
    }
    tensors |= {f"{n}.bias": torch.zeros(s[0]) for n, s in shapes.items() if "layer" in n}
    norms = ["embeddings.LayerNorm"]
    norms += [
        f"encoder.layer.{k}.{p}.LayerNorm" for k in range(6) for p in ("attention.output", "output")
    ]
    tensors |= {f"{n}.weight": torch.ones(WIDTH) for n in norms}
    tensors |= {f"{n}.bias": torch.zeros(WIDTH) for n in norms}
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A teacher, and CLDR's form with the world's names."""
    root = tmp_path_factory.mktemp("given")
    rows = "".join(
        f'<annotation cp="{k}">{name} | thing</annotation>'
        f'<annotation cp="{k}" type="tts">{name}</annotation>'
        for k, name in enumerate(World().names)
    )
    (root / "en.xml").write_text(
        f"<ldml><annotations>{rows}</annotations></ldml>", encoding="utf-8"
    )
    return random_teacher(root / "teacher"), root / "en.xml"


def test_a_tower_is_distilled_judged_and_read_again(given, tmp_path):
    said = []
    out = tmp_path / "tower.safetensors"
    train_tower(*given, out, TINY, said.append)
    assert any(line.startswith("text tower: effective rank") for line in said)
    (tmp_path / "recipe.toml").write_text(
        "steps = 1\ntext = 'tower.safetensors'\n[[phase]]\nfirst = 0\n"
        "canvases = [{height = 32, width = 32, batch = 1}]"
    )
    recipe = read_recipe(tmp_path / "recipe.toml")
    files = find_model("nano")
    object.__setattr__(files, "text", tmp_path / recipe.loop.text)
    vectors = load_text_encoder(files, torch.device("cpu"), torch.float32).encode(["fox", "taxi"])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))


def test_the_same_seed_gives_the_same_tower(given, tmp_path):
    files = [tmp_path / name for name in ("one", "same", "other")]
    for file, seed in zip(files, (0, 0, 1), strict=True):
        train_tower(*given, file, replace(TINY, seed=seed), print)
    one, same, other = (file.read_bytes() for file in files)
    assert one == same
    assert one != other


def test_a_tower_that_says_the_same_of_everything_is_refused_and_not_written(
    given, tmp_path, monkeypatch
):
    monkeypatch.setattr(text_run, "distil", collapsed(text_run.distil))
    out, said = tmp_path / "tower.safetensors", []
    with pytest.raises(TextTowerError, match="does not tell names apart: effective rank"):
        train_tower(*given, out, TINY, said.append)
    assert any(line.startswith("text tower: effective rank") for line in said)
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


def test_what_is_missing_is_said_in_one_line(given, tmp_path):
    teacher, cldr = given
    (tmp_path / "empty.xml").write_text("<ldml/>")
    (tmp_path / "other.xml").write_text('<a><annotation cp="x" type="tts">quark</annotation></a>')
    cases = [
        (tmp_path, cldr, "model.safetensors is missing; point to an all-MiniLM-L6-v2"),
        (teacher, tmp_path / "no.xml", "no.xml is no CLDR annotations file"),
        (teacher, tmp_path / "empty.xml", "empty.xml holds no names"),
        (teacher, tmp_path / "other.xml", "hold no thing of the drawn world"),
    ]
    for folder, names, said in cases:
        words = ["--teacher", str(folder), "--cldr", str(names), "--out", str(tmp_path / "t")]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 2, done.output
        assert len(done.stderr.strip().splitlines()) == 1
        assert said in done.stderr
