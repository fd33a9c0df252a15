"""The nano preset: a network of four million weights that sees the drawn world on two CPU cores."""

from __future__ import annotations

from dataclasses import dataclass

from ape_model.config import ApeConfig, VitConfig
from ape_model.text.nano_tower import NanoTextConfig

__all__ = ["NANO", "NanoConfig"]


@dataclass(frozen=True, slots=True)
class NanoConfig:
    """What nano has beside the fields of `ApeConfig`."""

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
        grain=32,
        levels=3,
        hidden=128,
        heads=4,
        points=4,
        ffn=256,
        encoder_layers=2,
        decoder_layers=3,
        queries=64,
        fusion_width=256,
        fusion_heads=4,
        text_width=128,
        text_tower="nano",
        bank_size=0,
        anchor_size=28 / 256,
        pre_nms_topk=160,
        proposal_nms=0.8,
        padding_proposes=False,
        norm_groups=8,
    ),
    text=NanoTextConfig(),
)
"""The shipped network."""
