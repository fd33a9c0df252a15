"""`ape-stream models` and `ape-stream prompts`, as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from typer.testing import CliRunner

from ape_model.commands import models, prompts
from ape_model.io.checkpoint_reader import file_digest
from ape_model.loading import open_embedder
from ape_model.text.embedding_file import EmbeddingFile
from ape_model.weights.import_official import VISION_FILE
from ape_model.weights.registry import find_model, models_root

if TYPE_CHECKING:
    from pathlib import Path

    import typer
    from click.testing import Result


def run(app: typer.Typer, *arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def refuse(app: typer.Typer, *arguments: object) -> str:
    """Run what must fail as a user's error: one line on stderr, nothing on stdout."""
    result = run(app, *arguments, code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture
def imported(tiny_as_d, released: Path, home: Path) -> Path:
    assert home
    assert tiny_as_d
    run(models.app, "import", released, "--variant", "D")
    return models_root() / "D"


# ---- models


def test_list_for_people_and_machines(imported: Path) -> None:
    printed = run(models.app, "list").stdout
    assert "imported" in printed
    assert "not here" in printed
    lines = json.loads(run(models.app, "list", "--json").stdout)
    assert {line["name"]: line["folder"] for line in lines}["D"] == str(imported)


def test_import_reports(tiny_as_d, released: Path, home: Path) -> None:
    assert tiny_as_d
    printed = run(models.app, "import", released, "--variant", "D", "--name", "mine").stdout
    assert "model_final.pth is a whole APE-D" in printed
    assert "dropped: iteration, trainer" in printed
    out = home / "elsewhere"
    report = json.loads(
        run(models.app, "import", released, "--variant", "D", "--output", out, "--json").stdout
    )
    assert report["origin_sha256"] == file_digest(released)
    assert report["vision"]["file"] == str(out / VISION_FILE)
    assert find_model(out).vision == out / VISION_FILE
    assert find_model("mine").variant == "D"


def test_info(imported: Path, released: Path) -> None:
    content = json.loads(run(models.app, "info", "D", "--json").stdout)
    assert content["vision"] == str(imported / VISION_FILE)
    assert content["origin_sha256"] == file_digest(released)
    assert content["origin_sha256"][:20] in run(models.app, "info", imported).stdout


def test_mistakes_are_one_line(imported: Path, released: Path, tmp_path: Path) -> None:
    assert imported
    assert "--force" in refuse(models.app, "import", released, "--variant", "D")
    run(models.app, "import", released, "--variant", "D", "--force")
    assert "no file" in refuse(
        models.app, "import", tmp_path / "none.pth", "--variant", "D", "--name", "x"
    )
    assert "is a folder" in refuse(models.app, "import", tmp_path, "--variant", "D", "--name", "x")
    assert "built in" in refuse(models.app, "import", released, "--variant", "D", "--name", "nano")
    assert "models pull Ti" in refuse(models.app, "info", "Ti")
    assert "choose one of" in refuse(models.app, "info", "yolo")
    assert "--force" in refuse(models.app, "pull", "D")


def test_unknown_variant(released: Path, home: Path) -> None:
    assert "A, B, C, D, Ti" in refuse(models.app, "import", released, "--variant", "E")
    assert "A, B, C, D, Ti" in refuse(models.app, "pull", "E")
    assert not list((home / "data").rglob("*.safetensors"))


def test_pull_imports_what_it_fetched(
    tiny_as_d, released: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny_as_d
    assert home
    monkeypatch.setattr("ape_model.weights.hub.fetch", lambda variant: {"D": released}[variant])
    report = json.loads(run(models.app, "pull", "D", "--json").stdout)
    assert report["variant"] == "D"
    assert find_model("D").vision.is_file()


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from ape_model.commands import models, prompts;"
        "sys.exit('torch' in sys.modules)"
    )
    paths = [path for path in sys.path if path.endswith(("model", "cuda_ops"))]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths}; {code}"], check=False
    )
    assert done.returncode == 0


# ---- prompts


def test_embed_writes_a_bank_that_needs_no_text_weights(imported: Path, tmp_path: Path) -> None:
    bank = tmp_path / "bank.safetensors"
    (tmp_path / "prompts.txt").write_text("left, of the tree\n\n  cat \n", encoding="utf-8-sig")
    printed = run(
        prompts.app, "embed", "--model", "D", "-p", "Red Apple, dog", "-p", "cat",
        "--prompts-file", tmp_path / "prompts.txt", "--output", bank, "--device", "cpu",
    ).stdout  # fmt: skip
    assert "4 prompts of 16 numbers" in printed
    assert EmbeddingFile.load(bank).texts == ("red apple", "dog", "cat", "left, of the tree")
    whole = open_embedder(find_model("D"), torch.device("cpu")).embed(["dog", "cat"])
    (imported / "text.safetensors").unlink()
    robot = open_embedder(find_model("D"), torch.device("cpu"), bank=bank, cache=tmp_path / "empty")
    assert torch.equal(robot.embed(["dog", "cat"]), whole)
    listed = json.loads(run(prompts.app, "list", bank, "--json").stdout)
    assert [entry["text"] for entry in listed] == ["red apple", "dog", "cat", "left, of the tree"]


def test_list_of_the_cache(imported: Path, tmp_path: Path) -> None:
    assert imported
    assert "0 prompts" in run(prompts.app, "list").stdout
    out = tmp_path / "b.safetensors"
    content = run(prompts.app, "embed", "--model", "D", "-p", "cat", "-o", out, "--json").stdout
    assert json.loads(content) == {"file": str(out), "prompts": 1, "width": 16}
    assert "1 prompts of 1 text towers" in run(prompts.app, "list").stdout


def test_prompt_mistakes_are_one_line(imported: Path, tmp_path: Path) -> None:
    assert imported
    to = ("--model", "D", "-o", tmp_path / "b.safetensors")
    assert "no prompt given" in refuse(prompts.app, "embed", *to)
    assert "no prompt given" in refuse(prompts.app, "embed", *to, "-p", " , ,")
    assert "no words" in refuse(prompts.app, "embed", *to, "-p", "&nbsp;")
    assert "cannot be read as text" in refuse(
        prompts.app, "embed", *to, "--prompts-file", tmp_path / "none.txt"
    )
    assert "eot, mean" in refuse(prompts.app, "embed", *to, "-p", "cat", "--pooling", "max")
    assert "choose auto" in refuse(prompts.app, "embed", *to, "-p", "cat", "--device", "tpu")
    assert "no file" in refuse(prompts.app, "list", tmp_path / "none.safetensors")
    assert not (tmp_path / "b.safetensors").exists()
