"""Files with flipped, missing and foreign bytes: one line of error, or the content unchanged."""

from __future__ import annotations

import io
import json
import pickle
import random
import zipfile
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from ape_model.errors import BankError, CheckpointError
from ape_model.io.checkpoint_reader import file_digest, read_checkpoint
from ape_model.io.safetensors_io import read_metadata, read_safetensors, write_safetensors
from ape_model.text.cache import EmbeddingSpace
from ape_model.text.embedding_file import EmbeddingFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MUTANTS = 500  # 1,500 were tried once; every kind of cause occurs among the first 500
SPACE = EmbeddingSpace(tower="ab" * 32, dtype="float32", pooling="eot")
STATE = {"model": {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(2).half()}, "step": 3}


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Flip a bit, overwrite, cut out, insert or repeat a few bytes, or cut off the end."""
    mutant = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        at, length = rng.randrange(len(mutant)), rng.randint(1, 8)
        kind = rng.randrange(6)
        if kind == 0:
            mutant[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            mutant[at : at + length] = rng.randbytes(len(mutant[at : at + length]))
        elif kind == 2:
            del mutant[at : at + length]
        elif kind == 3:
            mutant[at:at] = rng.randbytes(length)
        elif kind == 4:
            mutant[at:at] = mutant[at : at + length]
        elif len(mutant) > 1 and rng.random() < 0.2:
            del mutant[at:]
        if not mutant:
            return b""
    return bytes(mutant)


def one_line(error: pytest.ExceptionInfo[Exception] | Exception) -> str:
    message = str(error)
    assert message
    assert "\n" not in message
    return message


def checkpoint() -> bytes:
    written = io.BytesIO()
    torch.save(STATE, written)
    return written.getvalue()


def with_pickle(change: Callable[[bytes], bytes]) -> bytes:
    """A checkpoint whose pickle was changed and whose checksums are right again."""
    written = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(checkpoint())) as old,
        zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as new,
    ):
        for record in old.infolist():
            content = old.read(record)
            new.writestr(
                record.filename,
                change(content) if record.filename.endswith("data.pkl") else content,
            )
    return written.getvalue()


def test_a_damaged_checkpoint_is_refused_in_one_line_or_loads_unchanged(tmp_path: Path) -> None:
    rng, whole, path = random.Random(0), checkpoint(), tmp_path / "mutant.pth"
    refused = 0
    for _ in range(MUTANTS):
        path.write_bytes(mutate(whole, rng))
        try:
            found = read_checkpoint(path)
        except CheckpointError as error:
            one_line(error)
            refused += 1
            continue
        assert torch.equal(found["model"]["a.weight"], STATE["model"]["a.weight"])
        assert torch.equal(found["model"]["b"], STATE["model"]["b"])
        assert found["step"] == 3
    assert MUTANTS // 2 < refused < MUTANTS


def test_a_damaged_pickle_behind_right_checksums_is_one_line(tmp_path: Path) -> None:
    rng, path = random.Random(1), tmp_path / "mutant.pth"
    causes: set[type] = set()
    for _ in range(MUTANTS):
        path.write_bytes(with_pickle(lambda content: mutate(content, rng)))
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            one_line(error)
            causes.add(type(error.__cause__))
    assert {IndexError, KeyError, TypeError, pickle.UnpicklingError} <= causes


def test_a_pickle_that_ends_early_is_no_interruption(tmp_path: Path) -> None:
    path = tmp_path / "short.pth"
    for end in range(0, 80, 4):
        path.write_bytes(with_pickle(lambda content, end=end: content[:end]))
        with pytest.raises(CheckpointError) as error:
            read_checkpoint(path)
        one_line(error.value)


def test_a_flipped_bit_in_a_weight_is_noticed(tmp_path: Path) -> None:
    whole = bytearray(checkpoint())
    at = whole.index(torch.arange(6.0).numpy().tobytes())
    whole[at + 6] ^= 1
    path = tmp_path / "x.pth"
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match=r"x\.pth is damaged \(checksum of .*fetch it again"):
        read_checkpoint(path)


def test_a_compressed_archive_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    with pytest.raises(CheckpointError, match="a record is compressed"):
        read_checkpoint(path)


def test_a_damaged_safetensors_file_is_one_line(tmp_path: Path) -> None:
    rng, path = random.Random(2), tmp_path / "mutant.safetensors"
    write_safetensors(path, {"a": torch.ones(2, 3)}, {"format": "x"})
    whole = path.read_bytes()
    for _ in range(MUTANTS):
        path.write_bytes(mutate(whole, rng))
        for read in (read_safetensors, read_metadata):
            try:
                read(path)
            except CheckpointError as error:
                one_line(error)


@pytest.mark.parametrize("name", ["x" * 300 + ".pth", "a\0b.pth"])
def test_names_that_no_file_can_have(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    for read in (read_checkpoint, file_digest, read_safetensors, read_metadata):
        with pytest.raises(CheckpointError) as error:
            read(path)
        assert "\0" not in one_line(error.value)
    with pytest.raises(CheckpointError, match="cannot be written") as error:
        write_safetensors(path, {"a": torch.ones(1)}, {})
    assert "\0" not in one_line(error.value)
    with pytest.raises(BankError) as error:
        EmbeddingFile.load(path)
    assert "\0" not in one_line(error.value)


def test_a_dtype_that_the_format_lacks(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be written: a is torch\.complex64"):
        write_safetensors(tmp_path / "x", {"a": torch.ones(1, dtype=torch.complex64)}, {})
    assert not list(tmp_path.iterdir())


# ---- banks


def bank() -> EmbeddingFile:
    return EmbeddingFile(("cat", 'dog "face"'), torch.arange(1.0, 9.0).view(2, 4), SPACE)


def test_a_damaged_bank_is_refused_in_one_line_or_loads_unchanged(tmp_path: Path) -> None:
    rng, path = random.Random(3), tmp_path / "mutant.safetensors"
    bank().save(path)
    whole = path.read_bytes()
    for _ in range(MUTANTS):
        path.write_bytes(mutate(whole, rng))
        try:
            found = EmbeddingFile.load(path)
        except BankError as error:
            one_line(error)
            continue
        assert found.texts == bank().texts
        assert found.space == SPACE
        assert torch.equal(found.embeddings, bank().embeddings)


def old_bank(path: Path, rows: torch.Tensor, texts: str = '["cat", "dog"]') -> None:
    """A bank of before there were checksums."""
    label = {"format": "ape-stream-prompts 1", "texts": texts}
    label |= {"tower": SPACE.tower, "dtype": SPACE.dtype, "pooling": SPACE.pooling}
    save_file({"embeddings": rows}, path, label)


def test_a_bank_without_a_checksum_still_loads_with_a_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "old.safetensors"
    old_bank(path, torch.ones(2, 4))
    assert EmbeddingFile.load(path).texts == ("cat", "dog")
    assert f"{path} has no checksum" in caplog.text
    caplog.clear()
    bank().save(path)
    EmbeddingFile.load(path)
    assert not caplog.text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bank_of_numbers_that_are_none_is_refused_by_name(value: float, tmp_path: Path) -> None:
    path = tmp_path / "nan.safetensors"
    rows = torch.ones(2, 4)
    rows[1, 2] = value
    old_bank(path, rows)
    with pytest.raises(BankError, match=r"nan\.safetensors .*NaN or infinite .*'dog'"):
        EmbeddingFile.load(path)
    with pytest.raises(BankError, match="NaN or infinite"):
        EmbeddingFile(("cat", "dog"), rows, SPACE)


@pytest.mark.parametrize(
    "texts", ["[" * 100_000, '{"cat": 1, "dog": 2}', '"cat"', "[1, 2]", "", "[", '["cat", "cat"]']
)
def test_a_bank_whose_texts_are_no_list_of_texts(texts: str, tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    old_bank(path, torch.ones(2, 4), texts)
    with pytest.raises(BankError, match=r"bank\.safetensors .*prompts embed") as error:
        EmbeddingFile.load(path)
    one_line(error.value)


def test_the_checksum_covers_texts_space_and_values(tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    bank().save(path)
    _, label = read_safetensors(path)
    for change in (
        {"texts": json.dumps(["cow", 'dog "face"'])},
        {"pooling": "mean"},
        {"sha256": "0"},
    ):
        write_safetensors(path, {"embeddings": bank().embeddings}, label | change)
        with pytest.raises(BankError, match="checksum is wrong"):
            EmbeddingFile.load(path)
    write_safetensors(path, {"embeddings": bank().embeddings + 1e-6}, label)
    with pytest.raises(BankError, match="checksum is wrong"):
        EmbeddingFile.load(path)
