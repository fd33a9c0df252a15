"""ApeConfig and the five official models as plain data.

Everything that differs between sizes is a field here; the modules read nothing else. A preset is
a value, not code: `PRESETS["D"]` is the whole difference between APE-L_D and its siblings.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRESETS", "ApeConfig", "VitConfig"]


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
    """Rope positions are stretched to 0..rope_grid whatever the token grid's side is."""
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
    grain: int | None = None
    """Images are padded to a multiple of this many pixels; None pads to the whole square."""
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
    bank_size: int = 256
    """Columns that the official demo pads sentences to with zero vectors."""
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
    "A": ApeConfig("A", _EVA02_L, fusion=False, text_tower="eva01-g", bank_size=0),
    "B": ApeConfig("B", _EVA02_L, text_tower="eva01-g", bank_size=200),
    "C": ApeConfig("C", _EVA02_L, text_tower="eva01-g", bank_size=200),
    "D": ApeConfig("D", _EVA02_CLIP_L, neck=True, ambiguous_heads=1),
    "Ti": ApeConfig("Ti", _EVA02_TI, neck=True, ambiguous_heads=1),
}
"""The official models by name."""
