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


def bert_tokenizer(folder):
    """A tokenizer of BERT that knows a few words, with the special tokens where BERT has them."""
    transformers = pytest.importorskip("transformers")
    words = [f"[unused{k}]" for k in range(1100)]
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    known = special | {1012: ".", 1029: "?"}
    known |= dict(enumerate(["cat", "red", "apple", "the", "dog", "on", "left", "##s"], 1040))
    for place, word in known.items():
        words[place] = word
    vocabulary = {word: k for k, word in enumerate(words)}
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    return len(words)


@pytest.fixture(scope="session")
def grounding_dino(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("grounding_dino")
    count = bert_tokenizer(folder)
    swin = transformers.SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=2,
        out_indices=[2, 3, 4],
    )
    text = transformers.BertConfig(
        vocab_size=count,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    config = transformers.GroundingDinoConfig(
        backbone_config=swin,
        text_config=text,
        d_model=32,  # 32 groups are normalised
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=12,
        max_text_len=16,
    )
    torch.manual_seed(0)
    transformers.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    size = {"shortest_edge": 64, "longest_edge": 96}
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": size}))
    return folder


@pytest.fixture(scope="session")
def sam3(tmp_path_factory):
    transformers = pytest.importorskip("transformers", "5.0")
    folder = tmp_path_factory.mktemp("sam3")
    count = clip_tokenizer(folder)
    small = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    backbone = transformers.Sam3ViTConfig(
        image_size=56,
        patch_size=14,
        pretrain_image_size=28,
        window_size=2,
        num_hidden_layers=1,
        global_attn_indexes=[0],
        **small,
    )
    config = transformers.Sam3Config(
        vision_config={
            "backbone_config": backbone.to_dict(),
            "fpn_hidden_size": 16,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        },
        text_config={
            "vocab_size": count,
            "max_position_embeddings": 32,
            "num_hidden_layers": 1,
            "projection_dim": 16,
            "bos_token_id": count - 2,
            "eos_token_id": count - 1,
            **small,
        },
        geometry_encoder_config={"num_layers": 1, **small},
        detr_encoder_config={"num_layers": 1, **small},
        detr_decoder_config={"num_layers": 1, "num_queries": 8, **small},
        mask_decoder_config={"hidden_size": 16, "num_attention_heads": 2},
    )
    torch.manual_seed(0)
    transformers.Sam3Model(config).save_pretrained(folder)
    return folder
