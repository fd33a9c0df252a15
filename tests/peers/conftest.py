"""Tiny peers with random weights, written once a session in the files of the real ones."""

import json

import pytest
import torch


def clip_tokenizer(folder):
    """A tokenizer of CLIP that knows single letters, saved to a folder."""
    transformers = pytest.importorskip("transformers")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["!", *letters, *(f"{one}</w>" for one in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    files = {"vocab": str(folder / "vocab.json"), "merges": str(folder / "merges.txt")}
    transformers.CLIPTokenizer(**files, pad_token="!").save_pretrained(folder)
    return len(words)


@pytest.fixture(scope="session")
def owlv2(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("owlv2")
    count = clip_tokenizer(folder)
    one_layer = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    ends = {"bos_token_id": count - 2, "eos_token_id": count - 1, "pad_token_id": 0}
    config = transformers.Owlv2Config(
        text_config={"vocab_size": count, "max_position_embeddings": 16, **ends, **one_layer},
        vision_config={"image_size": 64, "patch_size": 16, **one_layer},
        projection_dim=16,
    )
    torch.manual_seed(0)
    transformers.Owlv2ForObjectDetection(config).save_pretrained(folder)
    return folder
