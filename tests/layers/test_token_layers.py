"""TokenProjection, AUSpecificFeatures and CosineClassifier."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers.golden_layer import TOLERANCE, assert_gradients, load
from torch import Tensor, nn

from aurel.layers.au_specific_features import AUSpecificFeatures
from aurel.layers.cosine_classifier import CosineClassifier
from aurel.layers.token_projection import TokenProjection
from aurel.models.author_keys.layers import (
    au_specific_features,
    cosine_classifier,
    token_projection,
)

Golden = Callable[[str], dict[str, np.ndarray]]


def linear_block(tokens: np.ndarray, state: dict[str, Tensor], training: bool) -> np.ndarray:
    """Return the authors' linear block, in numpy."""
    w = {key: value.numpy() for key, value in state.items()}
    out = tokens @ w["fc.weight"].T + w["fc.bias"]
    mean, var = w["bn.running_mean"], w["bn.running_var"]
    if training:
        mean, var = out.mean((0, 1)), out.var((0, 1))
    out = (out - mean) / np.sqrt(var + 1e-5) * w["bn.weight"] + w["bn.bias"]
    return np.maximum(out, 0)


def random_block(c: int, width: int) -> dict[str, Tensor]:
    vectors = dict.fromkeys(["fc.bias", "bn.weight", "bn.bias", "bn.running_mean"])
    state = {key: torch.randn(width, dtype=torch.float64) for key in vectors}
    state["fc.weight"] = torch.randn(width, c, dtype=torch.float64)
    state["bn.running_var"] = torch.rand(width, dtype=torch.float64) + 0.5
    state["bn.num_batches_tracked"] = torch.tensor(3)
    return state


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_token_projection_meets_the_equation(training: bool) -> None:
    state = random_block(5, 7)
    layer = TokenProjection(5, 7).double().train(training)
    layer.load_state_dict(token_projection(state))
    tokens = torch.randn(2, 3, 5, dtype=torch.float64)
    out = layer(tokens)
    assert out.shape == (2, 3, 7)
    np.testing.assert_allclose(
        out.detach(), linear_block(tokens.numpy(), state, training), atol=1e-12
    )


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_au_specific_features_are_private_blocks(training: bool) -> None:
    blocks = [random_block(5, 4) for _ in range(11)]
    author = {f"{n}.{key}": value for n, block in enumerate(blocks) for key, value in block.items()}
    layer = AUSpecificFeatures(5, 4, 11).double().train(training)
    layer.load_state_dict(au_specific_features(author))
    tokens = torch.randn(2, 3, 5, dtype=torch.float64)
    out = layer(tokens).detach().numpy()
    for n, block in enumerate(blocks):
        np.testing.assert_allclose(
            out[:, n], linear_block(tokens.numpy(), block, training), atol=1e-12
        )


def test_parameter_counts_of_the_papers() -> None:
    def count(layer: nn.Module) -> int:
        return sum(parameter.numel() for parameter in layer.parameters())

    assert count(TokenProjection(2048, 512)) == 2048 * 512 + 3 * 512
    assert count(AUSpecificFeatures(64, 64, 12)) == 12 * (64**2 + 3 * 64)
    assert count(CosineClassifier(512, 12)) == 12 * 512


@pytest.mark.parametrize(
    "layer", [TokenProjection(6, 64), AUSpecificFeatures(6, 64, 20)], ids=lambda x: type(x).__name__
)
def test_weights_are_initialized_as_by_the_authors(layer: nn.Module) -> None:
    layer.reset_parameters()
    torch.testing.assert_close(
        layer.linear.weight.std(), torch.tensor((2 / 64) ** 0.5), rtol=0.1, atol=0
    )


def test_one_image_and_strides() -> None:
    layer = AUSpecificFeatures(5, 4, 3)
    tokens = torch.randn(5, 1, 7).permute(1, 2, 0)
    torch.testing.assert_close(layer(tokens), layer(tokens.contiguous()))
    assert layer.norm.num_batches_tracked == 2
    assert layer.eval()(tokens[:0]).shape == (0, 3, 7, 4)


def test_repeated_calls_leave_the_input_alone() -> None:
    tokens = torch.randn(2, 7, 5)
    before = tokens.clone()
    TokenProjection(5, 4)(tokens)
    AUSpecificFeatures(5, 4, 3)(tokens)
    assert torch.equal(tokens, before)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_cosine_classifier_gives_the_authors_numbers(golden: Golden, mode: str) -> None:
    arrays = golden("node_classifier")
    layer = CosineClassifier(32, 12)
    load(layer, arrays, cosine_classifier, mode)
    x = torch.from_numpy(arrays["input.x"]).requires_grad_()
    out = layer(x)
    torch.testing.assert_close(out, torch.from_numpy(arrays[f"{mode}.out.0"]), **TOLERANCE)
    cotangent = torch.from_numpy(arrays["cotangent.0"])
    assert_gradients(layer, arrays, cosine_classifier, mode, {"x": x}, [out], [cotangent])


def test_cosine_classifier_at_the_edges() -> None:
    layer = CosineClassifier(4, 3)
    with torch.no_grad():
        layer.prototypes.copy_(torch.tensor([[1.0, 2, -9, 0], [-1, -1, -1, -1], [1, 0, 0, 0]]))
    x = torch.tensor([[[2.0, 4, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]], requires_grad=True)
    out = layer(x)
    torch.testing.assert_close(out, torch.tensor([[1.0, 0, 0]]))
    out.sum().backward()
    assert x.grad.isfinite().all() and layer.prototypes.grad.isfinite().all()
    assert layer(x.bfloat16()).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), out)


def test_nan_stays_in_its_node() -> None:
    x = torch.rand(2, 3, 4)
    x[0, 1, 2] = torch.nan
    bad = torch.zeros(2, 3, dtype=torch.bool)
    bad[0, 1] = True
    assert torch.equal(CosineClassifier(4, 3)(x).isnan(), bad)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_features_of_a_node_come_from_the_images_that_have_it(training: bool) -> None:
    mask = torch.tensor([[1, 0, 1], [1, 1, 0], [0, 0, 0], [1, 1, 0]], dtype=torch.bool)
    layer = AUSpecificFeatures(5, 4, 3).double().train(training)
    nn.init.normal_(layer.norm.bias)
    tokens = torch.randn(4, 7, 5, dtype=torch.float64)
    tokens[2] = torch.nan
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    out = layer(tokens, mask)
    assert not out[~mask].any()
    for node in range(3):
        alone = AUSpecificFeatures(5, 4, 3).double().train(training)
        alone.load_state_dict(before)
        images = mask[:, node]
        torch.testing.assert_close(out[images, node], alone(tokens[images])[:, node])
        own = slice(4 * node, 4 * node + 4)
        for name in ("running_mean", "running_var"):
            got, expected = (getattr(owner.norm, name)[own] for owner in (layer, alone))
            torch.testing.assert_close(got, expected)
    out.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_no_cosine_exceeds_one() -> None:
    layer = CosineClassifier(37, 500)
    with torch.no_grad():
        layer.prototypes.uniform_(0.1, 1)
        parallel = layer.prototypes * torch.rand(500, 1)
        raw = torch.nn.functional.normalize(parallel, dim=-1)
        prototypes = torch.nn.functional.normalize(layer.prototypes, dim=-1)
        assert (raw * prototypes).sum(-1).max() > 1
        assert layer(parallel[None]).max() == 1


def test_messages() -> None:
    with pytest.raises(ValueError, match=r"tokens must have shape \(B, D, C=5\), got \(2, 7, 4\)"):
        TokenProjection(5, 4)(torch.rand(2, 7, 4))
    with pytest.raises(ValueError, match=r"tokens must have shape \(B, D, C=5\), got \(7, 5\)"):
        AUSpecificFeatures(5, 4, 3)(torch.rand(7, 5))
    with pytest.raises(ValueError, match=r"x must have shape \(B, N=3, C=4\), got \(2, 4, 4\)"):
        CosineClassifier(4, 3)(torch.rand(2, 4, 4))
    with pytest.raises(ValueError, match="mask must be bool"):
        CosineClassifier(4, 3)(torch.rand(2, 3, 4), torch.ones(2, 3))
    with pytest.raises(ValueError, match="mask must be bool"):
        AUSpecificFeatures(5, 4, 3)(torch.rand(2, 7, 5), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"mask must have shape \(B=2, N=3\), got \(2, 4\)"):
        AUSpecificFeatures(5, 4, 3)(torch.rand(2, 7, 5), torch.ones(2, 4, dtype=torch.bool))
