"""The losses of a run and their factors."""

from __future__ import annotations

import pytest
import torch

from aurel.facs import AUSet, au_center_rules
from aurel.losses import (
    attention_map_loss,
    binary_cross_entropy_loss,
    edge_cross_entropy,
    expression_triplet_loss,
    landmark_alignment_loss,
    multilabel_circle_loss,
    multilabel_dice_loss,
    weighted_asymmetric_loss,
)
from aurel.models.registry import list_models
from aurel.output import AUOutput
from aurel.training.objective import Objective, losses_of


def output_and_batch() -> tuple[AUOutput, dict[str, torch.Tensor]]:
    probs = torch.rand(3, 4)
    output = AUOutput(probs, edge_logits=torch.randn(3, 4, 4, 4), landmarks=torch.randn(3, 49, 2))
    batch = {
        "labels": torch.tensor([[1.0, 0, -1, 1], [0, 0, 1, 1], [1, 1, 0, -1]]),
        "landmarks": torch.randn(3, 49, 2),
    }
    return output, batch


def test_the_papers_sums() -> None:
    output, batch = output_and_batch()
    weights = torch.tensor([0.5, 1.0, 2.0, 0.5])
    labels = batch["labels"]
    asymmetric = weighted_asymmetric_loss(output.probs, labels, weights)
    dice = multilabel_dice_loss(output.probs, labels, weights)
    edge = edge_cross_entropy(output.edge_logits, labels)
    landmark = landmark_alignment_loss(output.landmarks, batch["landmarks"])
    expected = {
        "me_graphau_stage1": asymmetric,
        "me_graphau": asymmetric + 0.05 * edge,
        "sacl": asymmetric + dice + 0.5 * landmark,
    }
    for model, value in expected.items():
        total, terms = Objective(losses_of(model), weights)(output, batch)
        torch.testing.assert_close(total, value)
        assert terms.keys() == losses_of(model).keys()
    total, _ = Objective(losses_of("me_graphau", {"edge": 0.01}), weights)(output, batch)
    torch.testing.assert_close(total, asymmetric + 0.01 * edge)


@pytest.mark.parametrize("model", [*list_models(), "expression_encoder"])
def test_the_losses_of_every_model_are_known(model: str) -> None:
    assert Objective(losses_of(model)).losses == losses_of(model)


def test_a_model_that_is_not_registered_has_no_losses() -> None:
    with pytest.raises(ValueError, match="a model, got 'lrp_fgh'; nearest: lrp_fgg"):
        losses_of("lrp_fgh")


def test_the_sum_of_lrp() -> None:
    logits, weights = torch.randn(3, 4), torch.tensor([0.5, 1.0, 2.0, 0.5])
    batch = output_and_batch()[1]
    output, labels = AUOutput(logits.sigmoid(), logits), batch["labels"]
    bce = binary_cross_entropy_loss(logits, labels, weights)
    circle = multilabel_circle_loss(logits, labels, weights)
    total, terms = Objective(losses_of("lrp_fgg"), weights)(output, batch)
    torch.testing.assert_close(total, bce + circle)
    torch.testing.assert_close(terms, {"bce": bce, "circle": circle})
    for name in ("bce", "circle"):
        with pytest.raises(ValueError, match=f"must return `logits` for the loss '{name}'"):
            Objective({name: 1.0})(AUOutput(output.probs), batch)


def test_the_sums_of_gtle() -> None:
    logits, labels = torch.randn(3, 4), torch.tensor([[1.0, 0, 0, 1], [0, 0, 1, 1], [1, 1, 0, 0]])
    output = AUOutput(logits.sigmoid(), logits)
    by_hand = -(labels * output.probs.log() + (1 - labels) * (1 - output.probs).log())
    total, terms = Objective(losses_of("gtle_net"))(output, {"labels": labels})
    torch.testing.assert_close(total, by_hand.sum(1).mean())
    assert terms.keys() == {"bce_sum"}
    unknown = labels.clone()
    unknown[0, :2] = -1  # counts as if it were like the others on the average
    total, _ = Objective(losses_of("gtle_net"))(output, {"labels": unknown})
    torch.testing.assert_close(total, 4 * by_hand.flatten()[2:].mean())

    embeddings, margin = torch.randn(5, 3, 6), torch.full((5,), 0.1)
    total, terms = Objective(losses_of("expression_encoder"))(embeddings, {"margin": margin})
    torch.testing.assert_close(total, expression_triplet_loss(embeddings, 0.1))
    assert terms.keys() == {"triplet"}


def test_attention_needs_masks_and_landmarks() -> None:
    aus = AUSet.of([1, 12])
    output = AUOutput(torch.rand(3, 2), masks=torch.rand(3, 2, 8, 8), aus=aus)
    batch = {"image": torch.zeros(3, 3, 40, 60), "landmarks": 40 * torch.rand(3, 49, 2)}
    objective = Objective({"attention": 1.0})
    total, _ = objective(output, batch)
    rules = au_center_rules(aus)
    expected = attention_map_loss(output.masks, batch["landmarks"], rules, (40, 60))
    torch.testing.assert_close(total, expected)
    with pytest.raises(ValueError, match="must have landmarks for the loss 'attention'"):
        objective(output, {"image": batch["image"]})
    with pytest.raises(ValueError, match="must return `masks` for the loss 'attention'"):
        objective(AUOutput(output.probs), batch)


def test_a_factor_of_zero_leaves_a_loss_out() -> None:
    output, batch = output_and_batch()
    del batch["landmarks"]
    total, terms = Objective(losses_of("sacl", {"landmark": 0.0}))(output, batch)
    assert terms.keys() == {"asymmetric", "dice"} and total.isfinite()


def test_class_weights_move_with_the_module_and_stay_out_of_checkpoints() -> None:
    objective = Objective({"asymmetric": 1.0}, torch.ones(4))
    assert not objective.state_dict()
    assert objective.to("meta").class_weights.device.type == "meta"  # type: ignore[union-attr]


def test_missing_landmarks_and_outputs_are_named() -> None:
    output, batch = output_and_batch()
    objective = Objective({"landmark": 1.0, "edge": 1.0})
    with pytest.raises(ValueError, match="must have landmarks for the loss 'landmark'"):
        objective(output, {"labels": batch["labels"]})
    with pytest.raises(ValueError, match="must return `edge_logits` for the loss 'edge'"):
        objective(AUOutput(output.probs, landmarks=output.landmarks), batch)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ({"wa": 1.0}, "losses must be among asymmetric, .*, got 'wa'"),
        ({"dice": -1.0}, "losses.dice must be at least 0, got -1"),
        ({"dice": float("nan")}, "losses.dice must be at least 0, got nan"),
        ({"dice": 0.0}, r"losses must have a factor above 0, got \{'dice': 0.0\}"),
    ],
)
def test_bad_factors(losses: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective(losses)
