from __future__ import annotations

import logging
import multiprocessing
import os
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from ape_model.errors import BankError, CheckpointError, PromptTextError
from ape_model.text.cache import CachedPrompt, EmbeddingCache, EmbeddingSpace, cache_root
from ape_model.text.clip_tower import ClipTextEncoder, TextConfig, TextTower
from ape_model.text.embedder import SENTENCE, VOCABULARY, PromptEmbedder, classify
from ape_model.text.embedding_file import EmbeddingFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

SPACE = EmbeddingSpace(tower="ab" * 32, dtype="float32", pooling="eot")


class Letters:
    """A tower that counts letters, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(
        self, texts: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> torch.Tensor:
        assert progress is None
        self.asked += texts
        rows = [[text.count(letter) for letter in "aeiou"] + [len(text)] for text in texts]
        return torch.tensor(rows).float()


def never() -> Letters:
    raise AssertionError("the text tower was loaded")


@pytest.fixture
def tower() -> Letters:
    return Letters()


@pytest.fixture
def cache(tmp_path: Path) -> EmbeddingCache:
    return EmbeddingCache(tmp_path / "cache")


# ---- kinds


def test_each_prompt_is_classed_alone() -> None:
    texts = ["cat", "traffic light", "the cat on the left", "Dog  FACE"]
    kinds = classify(texts, [None] * 4, {"traffic light", "dog face"})
    assert kinds == (VOCABULARY, VOCABULARY, SENTENCE, VOCABULARY)


def test_the_user_has_the_last_word() -> None:
    kinds = classify(["cat", "hot dog"], [SENTENCE, VOCABULARY])
    assert kinds == (SENTENCE, VOCABULARY)


def test_official_mode_one_space_flips_all() -> None:
    known = {"traffic light"}
    flipped = classify(["cat", "traffic light"], [None, None], known, official=True)
    assert flipped == (SENTENCE, SENTENCE)
    assert classify(["cat", "dog "], [None, None], known, official=True) == (VOCABULARY,) * 2


def test_official_mode_knows_no_single_kind() -> None:
    with pytest.raises(PromptTextError, match="leave out the kind of 'cat'"):
        classify(["cat"], [VOCABULARY], official=True)


# ---- embedder


def test_order_and_repeats_are_kept(tower: Letters) -> None:
    rows = PromptEmbedder(SPACE, lambda: tower).embed(["sea", "Boat", "sea", " BOAT "])
    assert tower.asked == ["sea", "boat"]
    assert rows[:, -1].tolist() == [3, 4, 3, 4]
    assert rows.dtype == torch.float32


def test_only_new_prompts_are_encoded(tower: Letters) -> None:
    embedder = PromptEmbedder(SPACE, lambda: tower)
    embedder.embed(["cat", "dog"])
    embedder.embed(["dog", "bird", "cat"])
    assert tower.asked == ["cat", "dog", "bird"]


def test_tower_is_loaded_once(tower: Letters) -> None:
    loads: list[int] = []

    def load() -> Letters:
        loads.append(1)
        return tower

    embedder = PromptEmbedder(SPACE, load)
    assert not loads
    embedder.embed(["a"])
    embedder.embed(["b"])
    assert len(loads) == 1


def test_a_warm_cache_never_loads_the_tower(tower: Letters, cache: EmbeddingCache) -> None:
    cold = PromptEmbedder(SPACE, lambda: tower, cache=cache).embed(["cat", "dog face"])
    warm = PromptEmbedder(SPACE, never, cache=EmbeddingCache(cache.root)).embed(["CAT", "dog face"])
    assert torch.equal(cold, warm)


@pytest.mark.parametrize("field", ["tower", "dtype", "pooling"])
def test_another_space_has_other_entries(field: str, tower: Letters, cache: EmbeddingCache) -> None:
    PromptEmbedder(SPACE, lambda: tower, cache=cache).embed(["cat"])
    names = {"tower": SPACE.tower, "dtype": SPACE.dtype, "pooling": SPACE.pooling}
    other = EmbeddingSpace(**(names | {field: "other"}))
    assert cache.get(other, "cat") is None
    assert cache.get(SPACE, "cat") is not None


@pytest.mark.parametrize("nothing", ["", "  ", "\n\u3000", "&nbsp;"])
def test_a_prompt_without_words_is_refused(nothing: str, tower: Letters) -> None:
    with pytest.raises(PromptTextError, match="no words"):
        PromptEmbedder(SPACE, lambda: tower).embed(["cat", nothing])
    assert not tower.asked


def test_unknown_without_a_tower_says_what_to_do() -> None:
    with pytest.raises(
        PromptTextError, match=r"'a', 'b', 'c' and 1 more .* prompts embed"
    ) as error:
        PromptEmbedder(SPACE, None).embed(["a", "b", "c", "d"])
    assert "\n" not in str(error.value)


def test_thousands_of_prompts(tower: Letters, cache: EmbeddingCache) -> None:
    texts = [f"thing number {n}" for n in range(2_000)]
    heard: list[tuple[int, int]] = []
    rows = PromptEmbedder(SPACE, lambda: tower, cache=cache).embed(
        texts, lambda done, of: heard.append((done, of))
    )
    assert rows.shape == (2_000, 6)
    assert heard[-1] == (2_000, 2_000)
    assert len(heard) > 2
    again = PromptEmbedder(SPACE, never, cache=cache).embed(texts)
    assert torch.equal(rows, again)


def test_memory_is_bounded(tower: Letters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ape_model.text.embedder._MEMORY_LIMIT", 2)
    embedder = PromptEmbedder(SPACE, lambda: tower)
    embedder.embed(["a", "b"])
    embedder.embed(["a"])
    embedder.embed(["c"])
    embedder.embed(["a", "c"])
    assert tower.asked == ["a", "b", "c"]
    embedder.embed(["b"])
    assert tower.asked == ["a", "b", "c", "b"]


def test_only_emoji_with_a_real_tower() -> None:
    torch.manual_seed(0)
    config = TextConfig(width=32, layers=2, heads=4, out_width=16, scale_in_text=True)
    encoder = ClipTextEncoder(TextTower(config))
    rows = PromptEmbedder(SPACE, lambda: encoder).embed(["😀", "🚀", "cat"])
    assert torch.isfinite(rows).all()
    assert not torch.equal(rows[0], rows[1])


def test_a_prompt_has_the_same_embedding_in_any_company() -> None:
    torch.manual_seed(0)
    config = TextConfig(width=32, layers=2, heads=4, out_width=16, scale_in_text=False)
    encoder = ClipTextEncoder(TextTower(config))
    company = ["cat", "a very long description of one small cat", "", *"abcdefgh"]
    alone = torch.cat([encoder.encode([text]) for text in company])
    torch.testing.assert_close(encoder.encode(company), alone, rtol=1e-5, atol=1e-6)


def test_encoder_reports_progress_and_bounds_its_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ape_model.text.clip_tower._TOKENS_PER_BATCH", 16)
    config = TextConfig(width=32, layers=1, heads=4, out_width=16, scale_in_text=False)
    heard: list[int] = []
    ClipTextEncoder(TextTower(config)).encode(["cat"] * 12, heard.append)
    assert heard == [5, 10, 12]


# ---- cache on disk


def test_cache_lives_where_xdg_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "ape_stream" / "prompts"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_root() == tmp_path / "home" / ".cache" / "ape_stream" / "prompts"


def files_of(root: Path) -> set[Path]:
    """The cache's files, one a prompt, below a folder."""
    return set(root.rglob("*.safetensors"))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _another_prompt(path: Path) -> None:
    other = EmbeddingCache(path.parent / "other")
    other.put(SPACE, "dog", torch.ones(6))
    (its_file,) = files_of(other.root)
    its_file.replace(path)


@pytest.mark.parametrize("damage", [_truncate, _flip_a_bit, _empty, _another_prompt])
def test_a_damaged_file_is_replaced_with_a_warning(
    damage: Callable[[Path], None],
    tower: Letters,
    cache: EmbeddingCache,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = PromptEmbedder(SPACE, lambda: tower, cache=cache).embed(["cat"])
    (path,) = files_of(cache.root)
    damage(path)
    with caplog.at_level(logging.WARNING):
        replaced = PromptEmbedder(SPACE, lambda: tower, cache=cache).embed(["cat"])
    assert torch.equal(whole, replaced)
    assert tower.asked == ["cat", "cat"]
    assert str(path) in caplog.text
    caplog.clear()
    PromptEmbedder(SPACE, never, cache=cache).embed(["cat"])
    assert not caplog.text


def test_the_longest_unused_go_first(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, limit=3)
    for age, text in enumerate(["new", "newer", "old", "oldest", "used"]):
        before = files_of(tmp_path)
        cache.put(SPACE, text, torch.ones(4))
        (path,) = files_of(tmp_path) - before
        os.utime(path, (1_000 - age, 1_000 - age))
    assert cache.get(SPACE, "used") is not None
    assert cache.prune() == 2
    assert [label.text for label in cache] == ["new", "newer", "used"]


def test_listing_says_text_and_space(cache: EmbeddingCache) -> None:
    cache.put(SPACE, "cat", torch.ones(4))
    (cache.root / "00").mkdir()
    (cache.root / "00" / "junk.safetensors").write_bytes(b"junk")
    assert list(cache) == [CachedPrompt("cat", SPACE)]


def test_a_cache_that_cannot_be_written_costs_one_warning(
    tmp_path: Path, tower: Letters, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    embedder = PromptEmbedder(
        SPACE, lambda: tower, cache=EmbeddingCache(tmp_path / "file" / "cache")
    )
    assert embedder.embed(["cat", "dog"]).shape == (2, 6)
    assert caplog.text.count("prompts are not cached") == 1


def test_nothing_half_written_stays(cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    cache.put(SPACE, "cat", torch.ones(4))
    assert not [path for path in cache.root.rglob("*") if path.is_file()]


def _fill(root: Path, barrier: object) -> None:
    barrier.wait()
    PromptEmbedder(SPACE, Letters, cache=EmbeddingCache(root)).embed(
        [f"prompt {n}" for n in range(300)]
    )


def test_processes_share_a_cache(cache: EmbeddingCache, caplog: pytest.LogCaptureFixture) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    workers = [context.Process(target=_fill, args=(cache.root, barrier)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    PromptEmbedder(SPACE, never, cache=cache).embed([f"prompt {n}" for n in range(300)])
    assert not caplog.text
    assert not list(cache.root.rglob(".part-*"))


# ---- bank


def _bank() -> EmbeddingFile:
    return EmbeddingFile(("cat", 'dog "face"'), torch.arange(8.0).view(2, 4), SPACE)


def test_bank_comes_back_whole(tmp_path: Path) -> None:
    _bank().save(tmp_path / "bank.safetensors")
    bank = EmbeddingFile.load(tmp_path / "bank.safetensors")
    assert bank.texts == ("cat", 'dog "face"')
    assert bank.space == SPACE
    assert torch.equal(bank.embeddings, _bank().embeddings)


def test_a_robot_runs_with_a_bank_alone() -> None:
    embedder = PromptEmbedder(SPACE, None, bank=_bank())
    assert embedder.embed([" DOG “face”", "cat"])[:, 0].tolist() == [4, 0]


def test_bank_of_another_tower_is_refused() -> None:
    other = EmbeddingSpace("cd" * 32, "float32", "eot")
    with pytest.raises(BankError, match=r"cdcdcdcdcdcd.*prompts embed"):
        PromptEmbedder(other, None, bank=_bank())


def test_bank_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="no file"):
        EmbeddingFile.load(tmp_path / "none")
    damaged = tmp_path / "damaged.safetensors"
    _bank().save(damaged)
    _truncate(damaged)
    with pytest.raises(BankError, match=r"damaged\.safetensors is damaged"):
        EmbeddingFile.load(damaged)
    _bank().save(damaged)
    save_file({"embeddings": torch.ones(1, 1)}, damaged)
    with pytest.raises(BankError, match="is no bank"):
        EmbeddingFile.load(damaged)


def test_bank_rows_and_texts_agree() -> None:
    with pytest.raises(BankError, match="not one float32 row each"):
        EmbeddingFile(("cat",), torch.zeros(2, 4), SPACE)
    with pytest.raises(BankError, match="twice"):
        EmbeddingFile(("cat", "cat"), torch.zeros(2, 4), SPACE)


def test_bank_into_a_file_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot be written"):
        _bank().save(tmp_path / "file" / "bank.safetensors")
