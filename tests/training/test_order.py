"""The order of an epoch: shares of processes, sampling by rare labels."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import Dataset, Subset

from aurel.training.data_module import AUDataModule, Splits
from aurel.training.order import EpochOrder, balanced_weights, label_table, source_of


class Rows(Dataset[dict[str, torch.Tensor]]):
    def __init__(self, labels: torch.Tensor) -> None:
        self.labels = labels
        self.paths = [f"{number}.png" for number in range(len(labels))]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"labels": self.labels[index], "noise": torch.rand(())}


def test_a_single_au_is_present_in_half_of_the_items() -> None:
    labels = torch.zeros(1000, 1)
    labels[:20] = 1
    weights = balanced_weights(labels)
    share = (weights / weights.sum())[:20].sum()
    torch.testing.assert_close(share, torch.tensor(0.5, dtype=torch.float64))


def test_weights_follow_the_equation_and_unknown_labels_do_not_count() -> None:
    labels = torch.tensor([[1, 0], [0, -1], [0, 0], [1, 1], [-1, -1], [0, 0]])
    q0, q1 = 2 / 5, 1 / 4  # shares of known labels that are present
    expected = [
        (1 / (2 * q0) + 1 / (2 * (1 - q1))) / 2,
        1 / (2 * (1 - q0)),
        (1 / (2 * (1 - q0)) + 1 / (2 * (1 - q1))) / 2,
        (1 / (2 * q0) + 1 / (2 * q1)) / 2,
        1.0,
        (1 / (2 * (1 - q0)) + 1 / (2 * (1 - q1))) / 2,
    ]
    torch.testing.assert_close(balanced_weights(labels), torch.tensor(expected).double())
    clips = torch.stack([labels, torch.full_like(labels, -1)], dim=1)
    torch.testing.assert_close(balanced_weights(clips), balanced_weights(labels))
    one_sided = balanced_weights(torch.ones(4, 1))
    torch.testing.assert_close(one_sided, torch.full((4,), 0.5).double())


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("count", [12, 13])
def test_processes_share_the_order_of_one(balanced: bool, count: int) -> None:
    data = Rows(torch.arange(count)[:, None] % 2)
    weights = balanced_weights(data.labels) if balanced else None

    def order(world: int, rank: int, epoch: int, skip: tuple[int, int] = (0, 0)) -> list[int]:
        sampler = EpochOrder(data, world, rank, 5, weights, skip)
        sampler.set_epoch(epoch)
        return list(sampler)

    whole = order(1, 0, 3)
    assert [place for place, _ in whole] == list(range(count))
    if not balanced:
        assert sorted(index for _, index in whole) == list(range(count))
    shares = [order(2, rank, 3) for rank in (0, 1)]
    merged = sorted(pair for share in shares for pair in share)
    if not balanced or count % 2 == 0:
        assert merged[:count] == whole
    assert len({len(share) for share in shares}) == 1
    assert order(1, 0, 4) != whole
    assert order(1, 0, 3, skip=(3, 5)) == whole[5:]
    assert order(1, 0, 4, skip=(3, 5)) == order(1, 0, 4)


def test_a_rare_au_is_seen_more_often_with_other_augmentation_each_time() -> None:
    labels = torch.zeros(400, 2)
    labels[:4, 1] = 1
    labels[100:, 0] = -1
    seen = {}
    for balanced in (False, True):
        splits = Splits(aus=None, train=Subset(Rows(labels), range(400)))  # type: ignore[arg-type]
        loader = AUDataModule(splits, batch_size=40, balanced=balanced).train_dataloader()
        batches = list(loader)
        rare = torch.cat([batch["labels"][:, 1] == 1 for batch in batches])
        noise = torch.cat([batch["noise"] for batch in batches])[rare]
        seen[balanced] = int(rare.sum())
        assert len(noise.unique()) == len(noise)
    assert seen[False] == 4
    assert 60 < seen[True] < 140  # 2 of the 4 AU labels of an item are of the rare AU


def test_labels_and_sources_of_subsets() -> None:
    data = Rows(torch.arange(6)[:, None])
    subset = Subset(Subset(data, [5, 4, 2]), [2, 0])
    assert label_table(subset).flatten().tolist() == [2, 5]
    assert source_of(subset, 0) == "2.png"
    del data.paths
    assert source_of(subset, 1) == "item 5"
    data.labels = data.labels[:3]
    with pytest.raises(ValueError, match=r"shuffle for data without a table|out of"):
        label_table(Subset([1, 2], [0]))  # type: ignore[arg-type]
