"""TopKGraphConv: the authors' facial graph generator."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers import golden_layer
from torch import Tensor, nn

from aurel.layers.topk_graph_conv import TopKGraphConv
from aurel.models.author_keys.layers import topk_graph_conv

Golden = Callable[[str], dict[str, np.ndarray]]
METRICS = {"dots": "dot", "cosine": "cosine", "l1": "l1"}  # the authors' names and those here


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("ties", ["exact", "all"])
@pytest.mark.parametrize("reference", METRICS)
def test_gives_the_authors_numbers(golden: Golden, reference: str, ties: str, mode: str) -> None:
    arrays = golden(f"facial_graph_generator_{reference}")
    layer = TopKGraphConv(32, 12, k=4, metric=METRICS[reference], ties=ties)
    golden_layer.load(layer, arrays, topk_graph_conv, mode)
    x = torch.from_numpy(arrays["input.x"]).requires_grad_()
    out = layer(x)
    expected = torch.from_numpy(arrays[f"{mode}.out.0"])
    torch.testing.assert_close(out, expected, **golden_layer.TOLERANCE)
    cotangent = torch.from_numpy(arrays["cotangent.0"])
    golden_layer.assert_gradients(
        layer, arrays, topk_graph_conv, mode, {"x": x}, [out], [cotangent]
    )
    if mode == "train":
        golden_layer.assert_buffers(layer, arrays, topk_graph_conv)


def random_layer(nodes: int = 6, **options) -> TopKGraphConv:
    layer = TopKGraphConv(8, nodes, **{"k": 3} | options).double()
    for tensor in layer.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.2, 1)
    return layer


def test_ties_are_all_kept_only_on_request() -> None:
    exact = random_layer().eval()
    every = random_layer(ties="all").eval()
    every.load_state_dict(exact.state_dict())
    x = torch.randn(1, 6, 8, dtype=torch.float64)
    torch.testing.assert_close(exact(x), every(x))
    x[:, 1:] = x[:, :1]
    x[:, 5] += 1
    own = every(x, return_graph=True)
    edges = own[1].edges()[0]
    assert edges[:5].sum(1).min() > 0 and edges.sum(1).max() > 3
    assert not torch.allclose(exact(x), own[0])


@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_the_graph_of_all_ties_is_the_one_that_was_used(metric: str) -> None:
    layer = random_layer(ties="all", metric=metric).eval()
    x = torch.randint(-1, 2, (4, 6, 8)).double()
    x[:, 3:5] = x[:, :1]
    out, graph = layer(x, MASK[:1].expand(4, -1), return_graph=True)
    assert (graph.edges().sum(2) > 3).any()
    values, own = layer.project(x).chunk(2, dim=-1)
    expected = torch.relu(x + layer.norm(graph.adjacency() @ values + own))
    torch.testing.assert_close(out, expected)


MASK = torch.tensor([[True] * 6, [True, True, False, True, True, False], [False] * 6])


@pytest.mark.parametrize("ties", ["exact", "all"])
def test_a_node_learns_from_the_samples_that_have_it(ties: str) -> None:
    layer, alone = random_layer(ties=ties), random_layer(ties=ties)
    alone.load_state_dict(layer.state_dict())
    x = torch.randn(3, 6, 8, dtype=torch.float64)
    spoiled = x.masked_fill(~MASK[..., None], torch.nan).requires_grad_()
    out = layer(spoiled, MASK)
    single = [2, 5]  # present in the first sample alone
    torch.testing.assert_close(out[0, single], alone(x[:1])[0, single])
    for name in ("running_mean", "running_var"):
        got, expected = (getattr(owner.norm, name)[single] for owner in (layer, alone))
        torch.testing.assert_close(got, expected)
    out.sum().backward()
    for tensor in (spoiled.grad, *(p.grad for p in layer.parameters())):
        assert tensor.isfinite().all()


def test_nan_in_one_node_stays_there() -> None:
    layer = random_layer(k=4).eval()
    x = torch.randn(2, 6, 8, dtype=torch.float64)
    x[1, 2] = torch.nan
    out = layer(x)
    assert out[0].isfinite().all()
    assert out[1].isnan().any(1).nonzero().flatten().tolist() == [2]


def test_starts_as_the_authors_do() -> None:
    layer = TopKGraphConv(256, 5)
    assert abs(layer.project.weight.std().item() - (2 / 256) ** 0.5) < 0.002
    assert layer.project.bias.abs().max() <= 1 / 16
    assert sum(p.numel() for p in layer.parameters()) == 2 * (256**2 + 256) + 2 * 5
    with torch.no_grad():
        layer.project.weight.zero_()
    layer.reset_parameters()
    assert layer.project.weight.std() > 0


def test_trains_in_low_precision_and_round_trips() -> None:
    layer = TopKGraphConv(8, 6, k=2, metric="l2")
    assert repr(layer).startswith(
        "TopKGraphConv(\n  8, num_nodes=6, k=2, metric='l2', ties='exact'"
    )
    x = torch.randn(4, 6, 8)
    expected = copy.deepcopy(layer)(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05)
    out.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    other = TopKGraphConv(8, 6, k=2, metric="l2")
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.eval()(x), layer.eval()(x))
    assert layer(torch.zeros(0, 6, 8)).shape == (0, 6, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 7}, r"k must be in 1\.\.6 \(the number of nodes\), got 7"),
        ({"metric": "dots"}, "metric must be one of .* got 'dots'"),
        ({"ties": "none"}, "ties must be one of exact, all"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TopKGraphConv(**{"channels": 8, "num_nodes": 6, "k": 3} | arguments)


def test_bad_inputs_are_named() -> None:
    layer = TopKGraphConv(8, 6, k=3)
    with pytest.raises(ValueError, match=r"x must have shape \(B, N=6, C=8\), got \(2, 5, 8\)"):
        layer(torch.zeros(2, 5, 8))
    with pytest.raises(ValueError, match="mask must be bool"):
        layer(torch.zeros(2, 6, 8), torch.ones(2, 6))
    with pytest.raises(ValueError, match=r"mask must have shape \(B=2, N=6\), got \(6,\)"):
        layer(torch.zeros(2, 6, 8), torch.ones(6, dtype=torch.bool))


def test_compiles_whole() -> None:
    layer = TopKGraphConv(8, 6, k=3)

    def gradients(function: Callable[[Tensor], Tensor]) -> list[Tensor]:
        out = function(x)
        return [out, *torch.autograd.grad(out.square().sum(), list(layer.parameters()))]

    x = torch.randn(3, 6, 8)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for got, expected in zip(gradients(compiled), gradients(layer), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ties", ["exact", "all"])
def test_absent_nodes_have_no_edges(ties: str) -> None:
    x = torch.randn(3, 6, 8, dtype=torch.float64).masked_fill(~MASK[..., None], torch.nan)
    _, graph = random_layer(ties=ties)(x, MASK, return_graph=True)
    assert not graph.edges()[~MASK].any() and not graph.edges().mT[~MASK].any()


def test_a_projection_without_bias() -> None:
    torch.manual_seed(0)
    layer = TopKGraphConv(8, 6, 3)
    nn.init.zeros_(layer.project.bias)
    plain = copy.deepcopy(layer)
    plain.project = nn.Linear(8, 16, bias=False)
    plain.project.weight.data.copy_(layer.project.weight)
    x = torch.randn(2, 6, 8)
    torch.testing.assert_close(plain(x), layer(x))
