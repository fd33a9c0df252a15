"""The batches of a run, made ahead in other processes; a fault in one is raised here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.utils.data import DataLoader, Dataset, Sampler

from ape_model.training.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ape_model.training.data.batch import Batch
    from ape_model.training.settings import EngineConfig

__all__ = ["load_batches"]


class _ErrorsAsItems(Dataset["Batch | DataError"]):
    """Batches, or the error of one: DataLoader would wrap an error of a worker in its traceback."""

    def __init__(self, data: Dataset[Batch]) -> None:
        self.data = data

    def __getitem__(self, step: int) -> Batch | DataError:
        try:
            return self.data[step]
        except DataError as error:
            return error


class _StepRange(Sampler[int]):
    """The steps from `first` up to the end of the run."""

    def __init__(self, first: int, steps: int) -> None:
        self.first, self.steps = first, steps

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.steps))

    def __len__(self) -> int:
        return max(0, self.steps - self.first)


def load_batches(data: Dataset[Batch], first: int, config: EngineConfig) -> Iterator[Batch]:
    """Yield the batches of the steps from `first` to the last one.

    Args:
        data: The batch of each step.
        first: Step to begin with.
        config: Number of steps and of workers.

    Raises:
        DataError: a batch cannot be made.
    """
    loader = DataLoader(
        _ErrorsAsItems(data),
        batch_size=None,  # items are whole batches
        sampler=_StepRange(first, config.steps),
        num_workers=config.workers,
        prefetch_factor=config.prefetch if config.workers else None,
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield batch
