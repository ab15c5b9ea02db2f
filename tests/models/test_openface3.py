"""OpenFace 3.0: a file with the authors' keys gives the numbers of a plain implementation."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from aurel.models import create_model, load_author_checkpoint
from aurel.models.author_keys.openface3 import LAYOUT

State = dict[str, Tensor]
AUS = 8


def linear(state: State, name: str, outputs: int, inputs: int) -> None:
    state[f"{name}.weight"] = torch.randn(outputs, inputs) / inputs**0.5
    state[f"{name}.bias"] = torch.randn(outputs) / 10


def author_state(backbone: str) -> tuple[Any, State]:
    """Return timm's backbone, and a state dict of the whole multi-task model with its weights."""
    base = timm.create_model(backbone, num_classes=0).eval()
    with torch.no_grad():
        for name, buffer in base.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(torch.rand_like(buffer) + 0.5)
    state = {f"base_model.{name}": value for name, value in base.state_dict().items()}
    width = base.num_features
    for name in ("fc_emotion", "fc_gaze", "fc_au"):
        linear(state, name, width, width)
    linear(state, "emotion_classifier", 8, width)
    linear(state, "gaze_regressor", 2, width)
    for node in range(AUS):
        linear(state, f"au_regressor.class_linears.{node}", width, width)
    for name in "UV":
        linear(state, f"au_regressor.gnn.{name}", width, width)
    norm = "au_regressor.gnn.bnv"
    for entry in ("weight", "bias", "running_mean", "running_var"):
        state[f"{norm}.{entry}"] = torch.rand(AUS) + 0.5
    state[f"{norm}.num_batches_tracked"] = torch.tensor(7)
    state["au_regressor.sc"] = torch.randn(AUS, width)
    return base, state


def affine(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].double().T + state[f"{name}.bias"].double()


def plain(base: Any, state: State, images: Tensor, k: int = 4) -> Tensor:
    """Return the probabilities, one image, AU and neighbor after the other, in float64."""
    rows = []
    for face in base(images).detach().double():
        face = affine(state, "fc_au", face).clamp(min=0)
        nodes = [affine(state, f"au_regressor.class_linears.{n}", face) for n in range(AUS)]
        scores = torch.tensor([[float(a @ b) for b in nodes] for a in nodes])
        near = [[bool(score >= sorted(row)[-k]) for score in row] for row in scores]
        degree = [sum(row) for row in near]
        norm = {e: state[f"au_regressor.gnn.bnv.{e}"].double() for e in ("weight", "bias")}
        mean = state["au_regressor.gnn.bnv.running_mean"].double()
        var = state["au_regressor.gnn.bnv.running_var"].double()
        row = []
        for i, node in enumerate(nodes):
            total = affine(state, "au_regressor.gnn.U", node)
            for j in range(AUS):
                if near[i][j]:
                    message = affine(state, "au_regressor.gnn.V", nodes[j])
                    total = total + message / (degree[i] * degree[j]) ** 0.5
            total = (total - mean[i]) / (var[i] + 1e-5).sqrt() * norm["weight"][i]
            out = (node + total + norm["bias"][i]).clamp(min=0)
            prototype = state["au_regressor.sc"][i].double().clamp(min=0)
            row.append(F.cosine_similarity(out, prototype, dim=0))
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.fixture
def loaded() -> tuple[Any, Any, State]:
    base, state = author_state("test_efficientnet")
    model = create_model("openface3", backbone="test_efficientnet")
    load_author_checkpoint(model, state)
    return model.eval(), base, state


def test_the_authors_numbers(loaded: tuple[Any, Any, State]) -> None:
    model, base, state = loaded
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        out = model(images, return_graph=True)
    torch.testing.assert_close(out.probs.double(), plain(base, state, images), rtol=0, atol=2e-5)
    assert out.probs.std() > 0.01
    assert out.graphs[0].weights.shape == (3, AUS, AUS)


def test_the_columns_are_the_aus_of_disfa(loaded: tuple[Any, Any, State]) -> None:
    assert loaded[0].aus.numbers == (1, 2, 4, 6, 9, 12, 25, 26)


def test_a_prefix_of_data_parallel_is_removed(loaded: tuple[Any, Any, State]) -> None:
    model, _, state = loaded
    again = create_model("openface3", backbone="test_efficientnet")
    load_author_checkpoint(again, {f"module.{key}": value for key, value in state.items()})
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("key", "message"), [("au_regressor.sc", "missing"), ("fc_au.bias", "missing")]
)
def test_a_missing_tensor_is_named(loaded: tuple[Any, Any, State], key: str, message: str) -> None:
    model, _, state = loaded
    rest = {name: value for name, value in state.items() if name != key}
    with pytest.raises(ValueError, match=f"{message}: {key}"):
        load_author_checkpoint(model, rest)
    with pytest.raises(ValueError, match="superfluous: au_regressor.more"):
        load_author_checkpoint(model, {**state, "au_regressor.more": torch.zeros(1)})


def test_the_full_size_has_the_keys_of_the_authors_backbone() -> None:
    with torch.device("meta"):
        base, state = author_state("tf_efficientnet_b0")
        model = create_model("openface3")
    layout = {key for key in state if not key.startswith(("fc_e", "fc_g", "emotion", "gaze"))}
    shapes = LAYOUT.shapes(model)
    assert set(shapes) == layout
    assert all(shapes[key] == tuple(state[key].shape) for key in layout)
    assert base.num_features == 1280
