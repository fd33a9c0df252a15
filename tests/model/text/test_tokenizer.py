from __future__ import annotations

import time

import pytest

from ape_model.text.clip_tokenizer import CONTEXT_LENGTH, VOCABULARY_SIZE, ClipTokenizer
from ape_stream.values.texts import clean_text


@pytest.fixture(scope="module")
def tokenizer() -> ClipTokenizer:
    return ClipTokenizer()


def test_known_words(tokenizer: ClipTokenizer) -> None:
    assert tokenizer.encode("person") == [2533]
    assert tokenizer(["person"])[0, :4].tolist() == [49406, 2533, 49407, 0]


def test_marks_are_the_last_ids(tokenizer: ClipTokenizer) -> None:
    assert tokenizer.start_id == VOCABULARY_SIZE - 2
    assert tokenizer.end_id == VOCABULARY_SIZE - 1


def test_every_byte_has_an_id(tokenizer: ClipTokenizer) -> None:
    every = "".join(chr(code) for code in range(0x21, 0x3000) if not chr(code).isspace())
    ids = tokenizer.encode(every)
    assert ids
    assert max(ids) < tokenizer.start_id


def test_long_text_is_cut_and_still_ends(tokenizer: ClipTokenizer) -> None:
    row = tokenizer(["dog " * 2_500])[0]
    assert row.shape == (CONTEXT_LENGTH,)
    assert row[-1] == tokenizer.end_id
    assert (row[1:-1] == row[1]).all()


def test_exactly_full_is_not_cut(tokenizer: ClipTokenizer) -> None:
    fits = " ".join(["dog"] * (CONTEXT_LENGTH - 2))
    assert (tokenizer([fits]) == tokenizer([fits + " dog"])).all()


def test_nothing_is_start_and_end(tokenizer: ClipTokenizer) -> None:
    for nothing in ("", "   ", "\n\t\u3000"):
        assert tokenizer([nothing])[0].tolist() == [49406, 49407] + [0] * 75


def test_only_emoji_has_words(tokenizer: ClipTokenizer) -> None:
    assert tokenizer.encode("😀🚀")
    assert tokenizer.encode("😀") != tokenizer.encode("🚀")


def test_no_texts_no_rows(tokenizer: ClipTokenizer) -> None:
    assert tokenizer([]).shape == (0, CONTEXT_LENGTH)


def test_typed_end_mark_is_the_end_token(tokenizer: ClipTokenizer) -> None:
    assert tokenizer.encode("cat <END_OF_TEXT> dog")[1] == tokenizer.end_id


def test_contractions_and_digits_split(tokenizer: ClipTokenizer) -> None:
    assert tokenizer.encode("2023") == [tokenizer.encode(digit)[0] for digit in "2023"]
    assert tokenizer.encode("we've") == tokenizer.encode("we") + tokenizer.encode("'ve")


@pytest.mark.parametrize(
    ("typed", "clean"),
    [
        ("  Red\n\tApple ", "red apple"),
        ("&amp;amp; &lt;b&gt;", "& <b>"),
        ("sâ€™il", "s'il"),
        ("", ""),
    ],
)
def test_clean_text(typed: str, clean: str) -> None:
    assert clean_text(typed) == clean


def test_same_clean_form_same_tokens(tokenizer: ClipTokenizer) -> None:
    assert tokenizer.encode("Dog  FACE") == tokenizer.encode("dog face")


def test_one_endless_word_takes_no_age(tokenizer: ClipTokenizer) -> None:
    letters = "".join(chr(97 + (n * n + 7 * n) % 26) for n in range(10_000))
    begun = time.monotonic()
    assert len(tokenizer.encode(letters)) > 1_000
    assert time.monotonic() - begun < 20
