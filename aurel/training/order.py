"""The order of the training items of an epoch, and the random numbers of each item."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler, Subset

from aurel.training.seeding import mixed


class EpochOrder(DistributedSampler[Any]):
    """Yield the place in the epoch and the index of each item of a process.

    The order depends on seed and epoch only, so that a run that is resumed in the middle of an
    epoch continues it. Without weights each item is taken once an epoch; with weights items are
    sampled with replacement, as many as there are.

    Args:
        data: the items.
        world: number of processes.
        rank: this process.
        seed: seed of the run.
        weights: (M,) relative frequency of each item, or None.
        skip: an epoch, and how many items of it were taken before the run was stopped.
    """

    def __init__(
        self,
        data: Dataset[Any],
        world: int,
        rank: int,
        seed: int,
        weights: Tensor | None = None,
        skip: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__(data, world, rank, shuffle=True, seed=seed)
        self.weights = weights
        self.skip = skip

    def __iter__(self) -> Iterator[Any]:
        indices = super().__iter__() if self.weights is None else self._sampled(self.weights)
        done = self.skip[1] if self.epoch == self.skip[0] else 0
        places = range(self.rank, self.total_size, self.num_replicas)
        return islice(zip(places, indices, strict=True), done, None)

    def _sampled(self, weights: Tensor) -> Iterator[int]:
        generator = torch.Generator().manual_seed(mixed(self.seed, self.epoch))
        indices = torch.multinomial(weights, self.total_size, True, generator=generator)
        return iter(indices[self.rank :: self.num_replicas].tolist())


class SeededItems(Dataset[Any]):
    """Items whose random augmentation depends on seed, epoch and place in the epoch only.

    It does not depend on the number of processes that read, nor on where a run was resumed. An
    item has its index as ``item``.

    Args:
        data: the items.
        seed: seed of the run.
        order: the sampler, which has the epoch.
    """

    def __init__(self, data: Dataset[Any], seed: int, order: EpochOrder) -> None:
        self.data = data
        self.seed = seed
        self.order = order

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def __getitem__(self, place_and_index: tuple[int, int]) -> dict[str, Any]:
        place, index = place_and_index
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mixed(self.seed, self.order.epoch, place))
            return {**self.data[index], "item": index}


def balanced_weights(labels: Tensor) -> Tensor:
    r"""Return for each item how often it is taken, so that rare AUs are seen more often.

    .. math::
        w_i = \frac{1}{|K_i|} \sum_{n \in K_i} \frac{1}{2\, q_n(y_{in})}

    with :math:`K_i` the AUs of known label of item i, and :math:`q_n(y)` the share of the label y
    among the known labels of AU n. With a single AU, present and absent are then as frequent.

    Args:
        labels: (M, N), of clips (M, T, N): 1 present, 0 absent, -1 unknown.

    Returns:
        (M,) float64; 1 for items without a known label.
    """
    frames = labels.reshape(len(labels), -1, labels.shape[-1])
    known = frames >= 0
    present = (frames == 1).double()
    share = present.sum((0, 1)) / known.sum((0, 1)).clamp_min(1)
    of_label = torch.where(frames == 1, share, 1 - share)
    inverse = torch.where(known, 1 / (2 * of_label.clamp_min(1e-12)), 0.0)
    count = known.sum((1, 2))
    return torch.where(count > 0, inverse.sum((1, 2)) / count.clamp_min(1), 1.0)


def label_table(data: Dataset[Any]) -> Tensor:
    """Return the labels of each item, (M, N), of clips (M, T, N).

    Raises:
        ValueError: the items have no labels that are known before they are read.
    """
    if isinstance(data, Subset):
        return label_table(data.dataset)[list(data.indices)]
    labels = getattr(data, "labels", None)
    if not isinstance(labels, Tensor) or len(labels) != len(data):  # type: ignore[arg-type]
        raise ValueError(
            f"data.sampler must be shuffle for data without a table of labels, got balanced for "
            f"{type(data).__name__}"
        )
    return labels


def source_of(data: Dataset[Any], index: int) -> str:
    """Return the file of an item, or its number where the data do not list files."""
    if isinstance(data, Subset):
        return source_of(data.dataset, data.indices[index])
    paths = getattr(data, "paths", None)
    return f"item {index}" if paths is None else str(paths[index])
