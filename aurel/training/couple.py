"""A relation head put onto a model that was trained without one."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from aurel.models.base import AUModel
from aurel.models.registry import config_dict, create_model, info_of
from aurel.models.relation_head import RelationHeadKind
from aurel.training.data_module import Splits

_BATCH = 64


def couple(model: AUModel, splits: Splits, kind: RelationHeadKind = "pairwise") -> AUModel:
    """Return a copy of a trained model with a relation head, fitted without further training.

    The couplings are those of the training labels. The model's logits are calibrated on the
    validation part, whose people it has not been trained on.

    Args:
        model: made by `create_model`, without a relation head, trained.
        splits: the data of its training run, with a validation part.
        kind: see `RelationHead`.

    Raises:
        ValueError: `model` has a relation head, or `splits` lacks training or validation labels.
    """
    if model.relation_head is not None:
        raise ValueError("model must have no relation head, got one that has")
    if splits.train_labels is None or splits.validation is None:
        raise ValueError("splits must have train_labels and a validation part")
    options = config_dict(replace(model.config, relation_head=kind))
    coupled = create_model(info_of(model).name, aus=model.aus, **options)
    coupled.load_state_dict(model.state_dict(), strict=False)
    head = coupled.relation_head
    assert head is not None
    head.fit_labels(splits.train_labels)
    head.calibrate(*_evidence(coupled, splits))
    return coupled.eval()


@torch.no_grad()
def _evidence(model: AUModel, splits: Splits) -> tuple[Tensor, Tensor]:
    """Return the local logits and the labels of the frames of the validation part, (M, N)."""
    model.eval()
    logits, labels = [], []
    assert splits.validation is not None
    for batch in DataLoader(splits.validation, batch_size=_BATCH):
        local = model(batch["image"]).local_logits
        assert local is not None
        logits.append(local.flatten(0, -2))
        labels.append(batch["labels"].flatten(0, -2))
    return torch.cat(logits), torch.cat(labels)
