"""Every size and every habit of a network as plain data: the five released models and nano.

Everything that differs between models is a field here; the modules read nothing else. A preset is
a value, not code: `PRESETS["D"]` is the whole difference between APE-L_D and its siblings, `NANO`
that between them and the network that ships.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NANO", "PRESETS", "ApeConfig", "NanoConfig", "NanoTextConfig", "VitConfig"]


@dataclass(frozen=True, slots=True)
class VitConfig:
    """An EVA-02 vision transformer and the simple pyramid on top of it."""

    width: int
    """Channels of a token."""
    depth: int
    """Number of blocks."""
    heads: int
    """Attention heads; width / heads must be a multiple of 4 (two rope axes of pairs)."""
    window: int
    """Side of a window in tokens."""
    window_blocks: tuple[int, ...]
    """Blocks that attend inside windows; all others attend globally."""
    pretrain_grid: int
    """Side of the stored absolute position table, without its class token."""
    patch: int = 16
    """Side of a patch in pixels: the stride of the tokens."""
    rope_grid: int = 16
    """Rope positions are stretched to 0..rope_grid for every side of the token grid."""
    mlp_ratio: float = 8 / 3
    """Hidden width of SwiGLU over width, rounded down."""
    packed: bool = False
    """One q-k-v matrix and one w1-w2 matrix, no norm inside SwiGLU (the Ti flavour)."""
    inner_norm: bool = False
    """A LayerNorm between attention and its output projection (the EVA-02-CLIP flavour)."""


@dataclass(frozen=True, slots=True)
class ApeConfig:
    """One APE network, complete."""

    name: str
    """What `--model` calls it."""
    backbone: VitConfig
    """What makes the feature maps."""
    canvas: int = 1024
    """Side in pixels of the square that images are resized into and padded to."""
    size_divisor: int | None = None
    """Images are padded to a multiple of this many pixels; None pads to the whole square."""
    wide_area: float | None = None
    """Share of the square that wide and tall images may fill, padded: their long side grows beyond
    `canvas`, at most by half. None: it is always `canvas`, as in the official code."""
    levels: int = 5
    """Feature levels that the transformer attends to, finest first."""
    hidden: int = 256
    """Channels of every token of the transformer."""
    heads: int = 8
    """Heads of deformable and self attention."""
    points: int = 4
    """Sampling points per head and level."""
    ffn: int = 2048
    """Hidden width of the transformer's feed-forward nets."""
    encoder_layers: int = 6
    """Deformable encoder layers, each with a fusion block before it where `fusion` is on."""
    decoder_layers: int = 6
    """Decoder layers."""
    queries: int = 900
    """Regions proposed per image."""
    neck: bool = False
    """A 1x1 convolution and GroupNorm per level between pyramid and transformer."""
    fusion: bool = True
    """Text and image are fused in the encoder (A has none)."""
    fusion_width: int = 2048
    """Inner width of the fusion block."""
    fusion_heads: int = 8
    """Heads of the fusion block."""
    ambiguous_heads: int = 0
    """Further objectness-and-box heads per token; the best of all is taken."""
    text_width: int = 1024
    """Channels of a prompt embedding."""
    text_tower: str = "eva02-bigE"
    """Name of the text encoder that made the embeddings."""
    anchor_size: float = 0.05
    """Side of the finest level's anchors over the image's side; doubles with every level."""
    pre_nms_topk: int = 1000
    """Tokens of each level that enter proposal NMS."""
    proposal_nms: float = 0.9
    """IoU above which the weaker of two proposals of one level falls."""
    padding_proposes: bool = True
    """Tokens of the padding may become queries, as in the official code, whose networks learnt to
    rank them last."""
    norm_groups: int = 32
    """Groups of every GroupNorm."""
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """Subtracted from RGB, on the 0..255 scale."""
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    """Divides RGB after the mean, on the 0..255 scale."""
    score_threshold: float = 0.3
    """Lowest score kept, 0..1, where the user gives none."""
    mask_margin: float | None = None
    """The mask of a thing ends at its box grown by this share of its sides; None: nowhere."""
    panoptic_mask_score: float = 0.1
    """Mask probability from which on a pixel may belong to a segment of a panoptic map (the
    official value: there, the classes cover the whole image)."""
    knows_drawn_stuff: bool = False
    """Stuff names of the drawn world are stuff without the user's declaration."""
    spare_core: bool = False
    """On a CPU, leave one core to decoding and writing."""

    def __post_init__(self) -> None:
        """Refuse widths that do not divide.

        Raises:
            ValueError: a width is no multiple of its heads or groups.
        """
        for what, width, parts in (
            ("hidden width by heads", self.hidden, self.heads),
            ("hidden width by norm groups", self.hidden, self.norm_groups),
            ("hidden width by four box coordinates", self.hidden, 4),
            ("fusion width by fusion heads", self.fusion_width, self.fusion_heads),
        ):
            if width % parts:
                raise ValueError(f"{self.name}: cannot divide {what}: {width} by {parts}")
        if not 1 <= self.levels <= 8:
            raise ValueError(f"{self.name}: levels must be 1..8, got {self.levels}")


def _all_but(depth: int, every: int) -> tuple[int, ...]:
    """Window blocks when every `every`-th of `depth` blocks attends globally."""
    return tuple(block for block in range(depth) if block % every != every - 1)


# Sizes of EVA-02 (arXiv 2303.11331); windows and global blocks alternate as in ViTDet.
_EVA02_L = VitConfig(
    width=1024, depth=24, heads=16, window=16, window_blocks=_all_but(24, 6), pretrain_grid=14
)
_EVA02_CLIP_L = VitConfig(
    width=1024,
    depth=24,
    heads=16,
    window=32,
    window_blocks=_all_but(24, 3),
    pretrain_grid=21,
    inner_norm=True,
)
_EVA02_TI = VitConfig(
    width=192,
    depth=12,
    heads=3,
    window=14,
    window_blocks=_all_but(12, 3),
    pretrain_grid=14,
    packed=True,
)

PRESETS: dict[str, ApeConfig] = {
    "A": ApeConfig("A", _EVA02_L, fusion=False, text_tower="eva01-g"),
    "B": ApeConfig("B", _EVA02_L, text_tower="eva01-g"),
    "C": ApeConfig("C", _EVA02_L, text_tower="eva01-g"),
    "D": ApeConfig("D", _EVA02_CLIP_L, neck=True, ambiguous_heads=1),
    "Ti": ApeConfig("Ti", _EVA02_TI, neck=True, ambiguous_heads=1),
}
"""The official models by name."""


@dataclass(frozen=True, slots=True)
class NanoTextConfig:
    """Sizes of nano's text tower."""

    words: int = 7000
    """Rows of the word table, row 0 (no known word) not counted."""
    buckets: int = 4096
    """Rows of the table of word pieces, row 0 (padding) not counted."""
    width: int = 96
    """Width of both tables."""
    hidden: int = 128
    """Width of the transformer and of the prompt's vector."""
    layers: int = 2
    """Transformer layers."""
    heads: int = 4
    """Attention heads; divides `hidden`."""
    max_words: int = 16
    """Words of a prompt that are read; the rest is cut off."""
    max_pieces: int = 24
    """Pieces of a word that are read."""


@dataclass(frozen=True, slots=True)
class NanoConfig:
    """What nano has in addition to the fields of `ApeConfig`."""

    ape: ApeConfig
    """Sizes of the modules that nano shares with the released models."""
    text: NanoTextConfig
    """Sizes of the text tower."""
    stem: tuple[int, int, int] = (24, 48, 96)
    """Channels of the convolutional stem at strides 2, 4 and 8."""
    unit: int = 256
    """Pixels that coordinate 1.0 stands for on a canvas of at most this side; see `unit_on`."""
    mask_channels: int = 48
    """Channels of the mask feature."""

    def unit_on(self, canvas: tuple[int, int]) -> int:
        """Pixels that coordinate 1.0 stands for on a canvas of (rows, columns).

        Boxes are sigmoids: none reaches beyond 1.0, so a larger canvas needs a larger unit.
        """
        return max(self.unit, *canvas)


NANO = NanoConfig(
    ape=ApeConfig(
        name="nano",
        backbone=VitConfig(
            width=192,
            depth=4,
            heads=6,
            window=16,
            window_blocks=(),
            pretrain_grid=16,
            mlp_ratio=1.75,
        ),
        canvas=256,
        size_divisor=32,
        wide_area=0.75,  # what an image of 4:3 has
        levels=3,
        hidden=128,
        heads=4,
        points=4,
        ffn=256,
        encoder_layers=2,
        decoder_layers=3,
        queries=80,
        fusion_width=256,
        fusion_heads=4,
        text_width=128,
        text_tower="nano",
        anchor_size=28 / 256,
        pre_nms_topk=160,
        proposal_nms=0.8,
        padding_proposes=False,
        norm_groups=8,
        # The quality focal loss raises low scores: at 0.3 there are many false alarms.
        score_threshold=0.5,
        mask_margin=0.08,  # mask losses hardly count beyond the box (training/losses)
        panoptic_mask_score=0.5,  # there is much in the image that nobody asked for
        knows_drawn_stuff=True,
        spare_core=True,
    ),
    text=NanoTextConfig(),
)
"""The shipped network."""
