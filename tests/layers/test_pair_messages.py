"""PairMessages: the equation, its graph, and which nodes take part."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from aurel.layers.pair_messages import PairMessages

GELU = np.vectorize(lambda z: z * (1 + math.erf(z / math.sqrt(2))) / 2)


def random_layer(channels: int = 5, num_nodes: int = 4) -> PairMessages:
    layer = PairMessages(channels, num_nodes).double()
    torch.nn.init.normal_(layer.pairs)
    return layer


def random_nodes(batch: int = 3, num_nodes: int = 4, channels: int = 5) -> torch.Tensor:
    return torch.randn(batch, num_nodes, channels, dtype=torch.float64)


def by_the_equation(layer: PairMessages, x: np.ndarray) -> np.ndarray:
    """One pair of nodes after the other, in numpy."""
    pairs, values = layer.pairs.detach().numpy(), layer.message.weight.detach().numpy()
    expected = x.copy()
    for item in range(len(x)):
        for i in range(x.shape[1]):
            for j in range(x.shape[1]):
                expected[item, i] += pairs[i, j] * GELU(values @ x[item, j])
    return expected


@pytest.mark.parametrize("sizes", [(3, 4, 5), (1, 1, 1), (2, 12, 16), (0, 4, 5), (2, 1, 3)])
def test_computes_the_equation(sizes: tuple[int, int, int]) -> None:
    layer, x = random_layer(sizes[2], sizes[1]), random_nodes(*sizes)
    expected = by_the_equation(layer, x.numpy()) if sizes[0] else x.numpy()
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-12, atol=1e-12)


def test_permuted_nodes_and_parameters_give_permuted_results() -> None:
    layer, moved, x = random_layer(), random_layer(), random_nodes()
    order = torch.tensor([2, 0, 3, 1])
    moved.load_state_dict(layer.state_dict())
    torch.testing.assert_close(moved(x), layer(x))
    with torch.no_grad():
        moved.pairs.copy_(layer.pairs[order][:, order])
    torch.testing.assert_close(moved(x[:, order]), layer(x)[:, order])
    assert not torch.allclose(layer(x[:, order]), layer(x)[:, order])


def test_a_masked_node_is_absent() -> None:
    layer, x = random_layer(), random_nodes()
    kept = torch.tensor([0, 2, 3])
    packed = random_layer(num_nodes=3)
    with torch.no_grad():
        packed.pairs.copy_(layer.pairs[kept][:, kept])
    packed.message = layer.message
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[:, 1] = False
    x[:, 1] = torch.nan
    out, graph = layer(x, mask, return_graph=True)
    torch.testing.assert_close(out[:, kept], packed(x[:, kept]))
    assert (out[:, 1] == 0).all()
    weights = graph.adjacency()
    assert (weights[:, 1] == 0).all() and (weights[:, :, 1] == 0).all()
    out.square().sum().backward()
    assert torch.isfinite(layer.message.weight.grad).all()
    assert (layer.pairs.grad[1] == 0).all() and (layer.pairs.grad[:, 1] == 0).all()


def test_items_of_a_batch_are_independent() -> None:
    layer, x = random_layer(), random_nodes()
    other = x.clone()
    other[1:] = torch.nan
    torch.testing.assert_close(layer(other)[0], layer(x)[0])


def test_gradients_are_those_of_finite_differences() -> None:
    layer, x = random_layer(2, 3), random_nodes(2, 3, 2).requires_grad_()
    mask = torch.tensor([[True, True, False], [True, True, True]])

    def call(x: torch.Tensor, pairs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        state = {"pairs": pairs, "message.weight": weight}
        return torch.func.functional_call(layer, state, (x, mask))

    assert torch.autograd.gradcheck(call, (x, layer.pairs, layer.message.weight))


def test_the_graph_holds_the_norms_of_the_pairs() -> None:
    layer, x = random_layer(), random_nodes()
    out, graph = layer(x, return_graph=True)
    torch.testing.assert_close(out, layer(x))
    expected = np.linalg.norm(layer.pairs.detach().numpy(), axis=2)
    assert graph.adjacency().shape == (3, 4, 4)
    np.testing.assert_allclose(graph.adjacency()[2].detach().numpy(), expected)


def test_starts_near_the_identity_with_gradients_everywhere() -> None:
    layer = PairMessages(64, 12)
    x = torch.randn(200, 12, 64)
    out = layer(x)
    assert 0 < (out - x).norm() < 0.1 * x.norm()
    out.square().sum().backward()
    assert (layer.pairs.grad != 0).all() and (layer.message.weight.grad != 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_keeps_the_dtype(dtype: torch.dtype) -> None:
    layer, x = random_layer(), random_nodes()
    expected = layer(x)
    out, graph = layer.to(dtype)(x.to(dtype), return_graph=True)
    assert out.dtype == graph.adjacency().dtype == dtype
    torch.testing.assert_close(out.double(), expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("x", "mask", "message"),
    [
        (torch.zeros(2, 3, 5), None, r"x must have shape \(B, N=4, C=5\), got \(2, 3, 5\)"),
        (torch.zeros(2, 4, 6), None, r"x must have shape \(B, N=4, C=5\), got \(2, 4, 6\)"),
        (torch.zeros(2, 4, 5), torch.ones(2, 4), "mask must be bool"),
    ],
)
def test_names_the_argument_that_does_not_fit(
    x: torch.Tensor, mask: torch.Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PairMessages(5, 4)(x, mask)
