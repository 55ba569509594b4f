"""The batches of a TokenLoader as torch's own DataLoader gives them, shared out among processes.

Takes a TokenLoader, and which of how many processes asks. Gives loaders of dicts of tensors, and how many steps their epochs have.
Knows nothing of Trainer, models or losses.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from pellucid.training.fastai_blocks import TokenLoader
from pellucid.types import IntArray

LABELS, WINDOWS = "labels", "windows"  # what a batch holds beside the inputs of the model


@dataclass
class Share:
    """The batches that one of several processes takes: of each round of `processes` batches the one at `rank`.

    Every process takes equally many: where the last round is not full, the first batches of the epoch stand in it once more.
    `loader.plan` alone says which rows go together, and in which order.
    """

    loader: TokenLoader
    rank: int = 0
    processes: int = 1
    epoch: int = 0

    def __iter__(self) -> Iterator[list[int]]:
        plan = self.loader.plan(self.epoch)
        return (plan[(start + self.rank) % len(plan)].tolist() for start in range(0, len(plan), self.processes))

    def __len__(self) -> int:
        return self.rounds(self.epoch)

    def rounds(self, epoch: int) -> int:
        """How many batches each process takes in an epoch."""
        return -(-len(self.loader.plan(epoch)) // self.processes)

    def collate(self, windows: Sequence[int]) -> dict[str, torch.Tensor]:
        """The inputs of the model, each (batch, tokens), the labels where there are some, and the numbers of the windows (batch,)."""
        loader, task = self.loader, self.loader.pipe.task
        chosen: IntArray = np.asarray(windows, dtype=np.int64)
        batch = task.drawn(task.collate(loader.table, chosen, loader.pad), self.epoch + 1 if loader.shuffle else 0)
        arrays = {**batch.inputs, WINDOWS: chosen} | ({} if batch.labels is None else {LABELS: np.asarray(batch.labels)})
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


class PlannedLoader(DataLoader):
    """torch's DataLoader over a Share: the same seed and epoch give the rows of the same batches as the TokenLoader.

    `share.epoch` is 0 until `set_epoch` says another one. torch's own random numbers are not drawn from.
    """

    def __init__(self, share: Share, *, pin_memory: bool = False) -> None:
        self.share = share
        windows = range(len(share.loader.table))
        super().__init__(windows, batch_sampler=share, collate_fn=share.collate, pin_memory=pin_memory, generator=torch.Generator())

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self.share.epoch = epoch


def epoch_steps(count: Callable[[int], int], epochs: float, max_steps: int) -> tuple[int, int, int]:
    """How many epochs are begun, the batches of the longest of them, and all batches; `count(epoch)` are those of an epoch.

    `max_steps` above 0 says how many batches there are, else `epochs` says it, which may end with a part of one.
    """
    counts: list[int] = []
    if max_steps > 0:
        while sum(counts) < max_steps:
            counts.append(count(len(counts)))
        return len(counts), max(counts), max_steps
    counts = [count(epoch) for epoch in range(ceil(epochs))]
    part = ceil((epochs - floor(epochs)) * counts[-1])
    return len(counts), max(counts), sum(counts[: floor(epochs)]) + part


def without(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of the model alone."""
    return {name: value for name, value in batch.items() if name not in (LABELS, WINDOWS)}
