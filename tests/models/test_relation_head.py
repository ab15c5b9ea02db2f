"""Relation heads: off by default, exact inference over the logits of any model where asked for."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_models import small_input, small_model
from torch import Tensor

from aurel.data.synthetic import SyntheticFaces
from aurel.models import create_model, load_model, save_model
from aurel.models.mdhr import stream
from aurel.models.registry import info_of, list_models, model_info
from aurel.models.relation_head import RelationHead
from aurel.training.couple import couple
from aurel.training.data_module import Splits
from aurel.training.objective import Objective
from aurel.training.options import OptimizerOptions
from aurel.training.task import make_optimizer


def set_couplings(head: RelationHead) -> None:
    with torch.no_grad():
        for parameter in head.inference.parameters():
            parameter.uniform_(-1, 1)


def couplings_of(head: RelationHead) -> tuple[Tensor, Tensor]:
    """Return h (N,) and J (N, N)."""
    return head.inference.bias.detach(), head.inference.graph().adjacency()[0].detach()


def brute_force(logits: Tensor, head: RelationHead) -> Tensor:
    """Return the marginals of one frame, (N,), by a sum over all states."""
    count = len(logits)
    bias, couplings = couplings_of(head)
    states = torch.tensor(list(product((0.0, 1.0), repeat=count)), dtype=torch.float64)
    energy = states @ (logits.double() + bias)
    energy = energy + ((states @ couplings.double().triu(1)) * states).sum(1)
    return energy.softmax(0) @ states


@pytest.mark.parametrize("name", list_models())
def test_every_model_takes_a_pairwise_head(name: str) -> None:
    torch.manual_seed(0)
    plain = small_model(name).eval()
    assert plain.relation_head is None
    model = small_model(name, relation_head="pairwise").eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    x = small_input(name, 2)
    with torch.no_grad():
        before, neutral = plain(x), model(x)
        torch.testing.assert_close(neutral.probs, before.probs, rtol=1e-3, atol=2e-4)
        set_couplings(model.relation_head)
        out = model(x)
    assert out.local_logits is not None and out.logits is not None
    torch.testing.assert_close(out.probs, out.logits.sigmoid())
    for local, probs in zip(out.local_logits.flatten(0, -2), out.probs.flatten(0, -2), strict=True):
        torch.testing.assert_close(
            probs.double(), brute_force(local, model.relation_head), rtol=0, atol=1e-5
        )


def test_a_model_of_clips_takes_a_chain() -> None:
    model = small_model("mdhr", relation_head="chain").eval()
    set_couplings(model.relation_head)
    out = model(small_input("mdhr", 2))
    assert out.probs.shape == out.local_logits.shape
    assert (out.probs - out.local_logits.sigmoid()).abs().max() > 0.01


def test_a_streamed_video_is_coupled_over_all_its_frames() -> None:
    """Up to the frames after a frame that the stream waits for, it is the clip as a whole."""
    torch.manual_seed(0)
    model = small_model("mdhr", relation_head="chain").eval()
    set_couplings(model.relation_head)
    torch.nn.init.constant_(model.relation_head.inference.stay, 1.0)
    video = torch.randn(11, 3, 64, 64)
    with torch.no_grad():
        whole = model(video[None])
    parts = list(stream(model, iter(video), chunk=4))
    assert [part.probs.shape[1] for part in parts] == [4, 7]
    got = torch.cat([part.probs for part in parts], 1)
    torch.testing.assert_close(got, whole.probs, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(got, torch.cat([part.logits for part in parts], 1).sigmoid())


def test_a_head_that_is_put_onto_a_trained_model_leaves_its_weights() -> None:
    faces = SyntheticFaces("BP4D", range(6), 10, 64, seed=0)
    labels = [faces.labels]
    splits = Splits(aus=faces.aus, train=faces, validation=Scaled(faces), train_labels=labels)
    model = create_model("au_windows").eval()
    coupled = couple(model, splits)
    assert coupled.relation_head.inference.couplings.abs().max() > 0.1
    images = torch.randn(2, 3, 64, 64)
    local = coupled(images).local_logits
    torch.testing.assert_close(local, model(images).logits)
    with pytest.raises(ValueError, match="model must have no relation head"):
        couple(coupled, splits)
    with pytest.raises(ValueError, match="splits must have train_labels and a validation part"):
        couple(model, Splits(aus=faces.aus))


class Scaled(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Faces as floating-point images."""

    def __init__(self, faces: SyntheticFaces) -> None:
        self.faces = faces

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: int) -> dict[str, object]:
        return {"image": self.faces.images[index].float() / 255, "labels": self.faces.labels[index]}


@pytest.mark.parametrize(
    ("name", "head", "message"),
    [
        ("sacl", "chain", "relation_head 'chain' must have a model of clips, got one of images"),
        ("sacl", "mean_field", "relation_head must be one of pairwise, chain, got 'mean_field'"),
        ("expression_encoder", "pairwise", "must have a model of AUs, got one of triplets"),
    ],
)
def test_heads_that_do_not_fit_are_refused(name: str, head: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model(name, relation_head=head)


def test_a_checkpoint_brings_its_head_back(tmp_path: Path) -> None:
    model = small_model("au_windows", relation_head="pairwise").eval()
    set_couplings(model.relation_head)
    save_model(model, tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt").eval()
    x = small_input("au_windows", 2)
    assert torch.equal(loaded(x).probs, model(x).probs)
    assert info_of(loaded) == model_info("au_windows")


def test_a_head_has_ten_times_the_learning_rate_and_no_decay() -> None:
    model = small_model("au_windows", relation_head="pairwise")
    optimizer = make_optimizer(model, OptimizerOptions(lr=1e-3, weight_decay=0.1))
    others, head = optimizer.param_groups
    assert (others["lr"], others["weight_decay"]) == (1e-3, 0.1)
    assert (head["lr"], head["weight_decay"]) == (1e-2, 0.0)
    own = {id(p) for p in model.relation_head.parameters() if p.requires_grad}
    assert {id(p) for p in head["params"]} == own
    assert len(others["params"]) == len(list(small_model("au_windows").parameters()))
    assert len(make_optimizer(small_model("au_windows"), OptimizerOptions()).param_groups) == 1


def test_the_joint_loss_is_the_likelihood_of_all_labels_at_once() -> None:
    """Unknown labels are summed out; the gradient reaches the net and the couplings."""
    model = small_model("au_windows", relation_head="pairwise")
    set_couplings(model.relation_head)
    labels = torch.tensor([[1, 0, 1, -1, 0], [0, 0, -1, 1, 1]])
    objective = Objective({"joint": 1.0}, joint_nll=model.relation_head.nll)
    out = model(small_input("au_windows", 2))
    loss, _ = objective(out, {"labels": labels})
    expected = 0.0
    bias, couplings = couplings_of(model.relation_head)
    for u, known in zip(out.local_logits, labels, strict=True):
        weight = {True: 0.0, False: 0.0}
        for state in product((0, 1), repeat=5):
            y = torch.tensor(state, dtype=torch.float32)
            energy = float((u.detach() + bias) @ y + y @ couplings.triu(1) @ y)
            weight[False] += np.exp(energy)
            agrees = all(k in (-1, s) for s, k in zip(state, known.tolist(), strict=True))
            weight[True] += np.exp(energy) * agrees
        expected -= np.log(weight[True] / weight[False]) / 5 / 2
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert model.relation_head.inference.couplings.grad.triu(1).abs().sum() > 0
    assert model.classifier.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="the loss 'joint' needs a model with a relation head"):
        Objective({"joint": 1.0})(out, {"labels": labels})


def test_calibration_counts_the_rates_once() -> None:
    """Without evidence of an AU, its probability is the rate of its labels."""
    torch.manual_seed(0)
    rates = torch.tensor([0.2, 0.6, 0.4])
    labels = torch.bernoulli(rates.expand(4000, 3)).long()
    labels[:, 2] = torch.where(torch.rand(4000) < 0.8, labels[:, 1], labels[:, 2])
    head = RelationHead("pairwise", 3)
    head.fit_labels(labels)
    evidence = labels.float().mean(0).logit().expand(4000, 3) + 0.0
    head.calibrate(evidence, labels)
    coupled = head.inference(head.calibration(evidence[:1])).sigmoid()
    torch.testing.assert_close(coupled[0], labels.float().mean(0), rtol=0, atol=0.01)
