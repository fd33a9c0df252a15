"""The teacher: a sentence encoder of random weights, written by its own library and read again."""

import logging
import shutil

import pytest
import torch

from ape_model.errors import CheckpointError, ModelMissingError
from ape_model.training.text_tower.teacher import Teacher

pytestmark = [
    # Warnings of the library about itself.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "apple", "of", "taxi", "##s", "9a8"]
WIDTH = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A narrow BERT with mean pooling, as sentence-transformers saves one."""
    reason = "the extra `distil` is not installed"
    library = pytest.importorskip("sentence_transformers", reason=reason)
    transformers = pytest.importorskip("transformers", reason=reason)
    root = tmp_path_factory.mktemp("teacher")
    (root / "vocab.txt").write_text("\n".join(PIECES), encoding="utf-8")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(PIECES), hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=32,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(root / "bert")
    transformers.BertTokenizerFast(str(root / "vocab.txt")).save_pretrained(root / "bert")
    library.SentenceTransformer(str(root / "bert"), device="cpu").save(str(root / "st"))
    return root / "st"


def test_vectors_are_means_over_word_states_of_length_one(folder):
    transformers = pytest.importorskip("transformers")
    vectors = Teacher(folder).encode(["red apple", "taxis"])
    assert vectors.shape == (2, WIDTH)
    assert vectors.dtype == torch.float32
    bert = transformers.BertModel.from_pretrained(folder).eval()
    ids = [[2, 5, 6, 3], [2, 8, 9, 3]]
    with torch.no_grad():
        means = bert(torch.tensor(ids)).last_hidden_state.mean(1)
    torch.testing.assert_close(vectors, means / means.norm(dim=1, keepdim=True))


def test_a_text_has_the_same_vector_in_any_company(folder):
    teacher = Teacher(folder)
    texts = ["red apple", "taxi", "apple of taxis red", "apple"]
    alone = torch.cat([teacher.encode([text]) for text in texts])
    torch.testing.assert_close(teacher.encode(texts, batch=3), alone)


def test_vocabulary_is_whole_words_in_the_order_of_the_file(folder):
    assert Teacher(folder).vocabulary() == ["red", "apple", "taxi"]


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ModelMissingError, match=r"modules\.json is missing"):
        Teacher(tmp_path)


def test_a_damaged_model_is_one_line(folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"damaged")
    logging.getLogger("transformers").setLevel(logging.CRITICAL)
    with pytest.raises(CheckpointError, match=r"is damaged .*: download the model again") as caught:
        Teacher(broken)
    assert "\n" not in str(caught.value)
