"""Ensembles of models that vote."""

from __future__ import annotations

import pytest
import torch
from helpers.small_models import evaluate_after_one_step, small_images, small_model
from torch import Tensor, nn

from aurel.facs import AUSet
from aurel.models import VotingEnsemble
from aurel.output import AUOutput


class Constant(nn.Module):
    """A model with the same output for every image."""

    def __init__(self, *probs: float, aus: tuple[int, ...] = (1, 2, 4)) -> None:
        super().__init__()
        self.aus = AUSet.of(aus)
        self.register_buffer("probs", torch.tensor(probs))

    def forward(self, images: Tensor) -> AUOutput:
        return AUOutput(self.probs.expand(len(images), -1), aus=self.aus)


def test_the_share_of_those_that_say_present() -> None:
    models = [Constant(0.9, 0.1, 0.5), Constant(0.6, 0.6, 0.4), Constant(0.2, 0.0, 0.49)]
    out = VotingEnsemble(models)(torch.zeros(2, 3, 8, 8))
    torch.testing.assert_close(out.probs, torch.tensor([[2 / 3, 1 / 3, 1 / 3]] * 2))
    assert out.aus == models[0].aus and out.logits is None
    low = VotingEnsemble(models, threshold=0.2)(torch.zeros(1, 3, 8, 8))
    torch.testing.assert_close(low.probs, torch.tensor([[1.0, 1 / 3, 1.0]]))


def test_five_votes_are_the_majority_at_one_half() -> None:
    for votes in range(6):
        models = [Constant(*[0.7 if m < votes else 0.3] * 3) for m in range(5)]
        present = VotingEnsemble(models)(torch.zeros(1, 3, 8, 8)).probs >= 0.5
        assert present.all() == present.any() == (votes >= 3)


def test_nan_is_not_a_vote_against() -> None:
    models = [Constant(0.9, float("nan"), 0.1), Constant(0.9, 0.9, 0.9)]
    out = VotingEnsemble(models)(torch.zeros(1, 3, 8, 8))
    assert out.probs[0, 1].isnan() and out.probs[0, [0, 2]].tolist() == [1, 0.5]


def test_models_of_different_kinds() -> None:
    models = [small_model("lrp_fgg"), small_model("macg")]
    for model in models:
        evaluate_after_one_step(model)
    ensemble = VotingEnsemble(models, threshold=0.3).eval()
    images = small_images()
    expected = sum((model(images).probs >= 0.3).float() for model in models) / 2
    torch.testing.assert_close(ensemble(images).probs, expected)
    assert len(list(ensemble.parameters())) == sum(len(list(m.parameters())) for m in models)


def test_messages() -> None:
    with pytest.raises(ValueError, match="models must hold at least one, got none"):
        VotingEnsemble([])
    with pytest.raises(ValueError, match=r"threshold must be in 0..1, got 2"):
        VotingEnsemble([Constant(0.1, 0.2, 0.3)], threshold=2)
    with pytest.raises(ValueError, match="got AU01, AU02, AU04 and AU02, AU01, AU04"):
        VotingEnsemble([Constant(0.1, 0.2, 0.3), Constant(0.1, 0.2, 0.3, aus=(2, 1, 4))])
    assert "threshold=0.25" in repr(VotingEnsemble([Constant(0.1, 0.2, 0.3)], 0.25))
