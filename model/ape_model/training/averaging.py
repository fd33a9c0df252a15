"""Averaged weights: they follow those that are trained slowly, and are what a run exports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.optim.swa_utils import get_ema_multi_avg_fn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

__all__ = ["AveragedWeights"]


class AveragedWeights:
    """Exponential moving average (EMA) of a network's state.

    Args:
        network: Whose weights are averaged, on its device.
        decay: Of the average per update, 0..1 and below 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network, self.decay = network, decay
        self.weights = {key: value.detach().clone() for key, value in network.state_dict().items()}

    def update(self, updates: int) -> None:
        """Move the average towards the current weights.

        Args:
            updates: Number of updates of the network so far.
        """
        # Early weights are poor: the average forgets them within a few updates.
        decay = min(self.decay, (1 + updates) / (10 + updates))
        current = self.network.state_dict()
        # Not the counters of batch norms, which are whole numbers and not used.
        floats = [key for key, value in current.items() if value.is_floating_point()]
        average = get_ema_multi_avg_fn(decay)
        average([self.weights[key] for key in floats], [current[key] for key in floats], updates)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Restore an average.

        Raises:
            ValueError: it is of another network.
        """
        if weights.keys() != self.weights.keys():
            raise ValueError("its averaged weights are those of another network")
        self.weights = dict(weights)
