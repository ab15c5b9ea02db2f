"""The four graph convolutions over neighbor lists: their equations, masks, given graphs."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.layers.graph_convs import (
    EdgeGraphConv,
    GINGraphConv,
    MaxRelativeGraphConv,
    SAGEGraphConv,
)
from aurel.layers.linear_norm import LinearNorm

CONVS = (MaxRelativeGraphConv, EdgeGraphConv, GINGraphConv, SAGEGraphConv)
every_conv = pytest.mark.parametrize("conv", CONVS, ids=lambda conv: conv.__name__)


def random_layer(conv: type[nn.Module], **options) -> nn.Module:
    layer = conv(8, 12, **{"k": 3} | options).double()
    for tensor in layer.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.3, 1)
    for parameter in layer.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter)
    return layer


def apply(part: LinearNorm, x: Tensor) -> Tensor:
    """Grouped 1x1 convolution, BatchNorm, GELU of any (..., C), by torch's own functions."""
    flat = F.conv1d(x.flatten(0, -2)[..., None], part.weight[..., None], part.bias, groups=4)
    norm = part.norm
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    out = F.batch_norm(flat.squeeze(-1), mean, var, norm.weight, norm.bias, norm.training)
    return F.gelu(out).view(*x.shape[:-1], -1)


def pairs(x: Tensor, other: Tensor) -> Tensor:
    return torch.stack((x, other), dim=-1).flatten(-2)


def equation(layer: nn.Module, x: Tensor, neighbors: Tensor) -> Tensor:
    """Compute the equation of the docstring from a tensor of all edges."""
    around = x[torch.arange(len(x))[:, None, None], neighbors]  # (B, N, K, C)
    center = x[:, :, None].expand_as(around)
    if isinstance(layer, MaxRelativeGraphConv):
        return apply(layer.project, pairs(x, (around - center).amax(2)))
    if isinstance(layer, EdgeGraphConv):
        return apply(layer.project, pairs(center, around - center)).amax(2)
    if isinstance(layer, GINGraphConv):
        return apply(layer.project, (1 + layer.epsilon) * x + around.sum(2))
    messages = apply(layer.message, x)[torch.arange(len(x))[:, None, None], neighbors]
    return apply(layer.project, pairs(x, messages.amax(2)))


@every_conv
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("loop", [True, False])
def test_computes_its_equation(conv: type[nn.Module], training: bool, loop: bool) -> None:
    layer = random_layer(conv, loop=loop).train(training)
    x = torch.randn(4, 9, 8, dtype=torch.float64, requires_grad=True)
    distances = torch.cdist(x.detach(), x.detach())
    if not loop:
        distances.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    neighbors = distances.argsort(2)[..., :3]
    reference = equation(layer, x, neighbors)
    out, graph = layer(x, return_graph=True)
    assert torch.equal(graph.neighbors, neighbors)
    torch.testing.assert_close(out, reference)
    leaves = [x, *layer.parameters()]
    weight = torch.randn_like(out)
    for got, expected in zip(
        torch.autograd.grad(out, leaves, weight, retain_graph=True),
        torch.autograd.grad(reference, leaves, weight),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


@every_conv
@pytest.mark.parametrize("training", [True, False])
def test_absent_nodes_in_lists_of_the_caller_have_no_effect(
    conv: type[nn.Module], training: bool
) -> None:
    """The same nodes are valid in all samples, so that statistics of the packed nodes are equal."""
    layer = random_layer(conv).train(training)
    packed = copy.deepcopy(layer)
    present = torch.tensor([0, 2, 3, 6, 7])
    mask = torch.zeros(4, 9, dtype=torch.bool)
    mask[:, present] = True
    x = torch.randn(4, 9, 8, dtype=torch.float64).masked_fill(~mask[..., None], torch.nan)
    graph = torch.tensor([[0, 6, -1], [3, 2, 1], [7, 4, 8], [-1, -1, -1], [2, 5, 3]])
    lists = torch.zeros(4, 9, 3, dtype=torch.int64)
    lists[:, present] = graph
    place = torch.full((9,), -1)
    place[present] = torch.arange(5)
    packed_graph = torch.where(graph < 0, -1, place[graph.clamp_min(0)]).expand(4, -1, -1)
    x.requires_grad_()
    out, used = layer(x, mask, lists, return_graph=True)
    expected, packed_used = packed(x[:, present], neighbors=packed_graph, return_graph=True)
    torch.testing.assert_close(out[:, present], expected)
    assert not out[~mask].any() and (used.neighbors[~mask] == -1).all()
    moved = place[used.neighbors[:, present].clamp_min(0)]
    moved = moved.masked_fill(used.neighbors[:, present] < 0, -1)
    assert torch.equal(moved, packed_used.neighbors)
    torch.testing.assert_close(layer.state_dict(), packed.state_dict())
    grads = [
        torch.autograd.grad(result.square().sum(), [x, *owner.parameters()])
        for result, owner in ((out, layer), (expected, packed))
    ]
    for got, expected in zip(*grads, strict=True):
        torch.testing.assert_close(got, expected)
        assert got.isfinite().all()


@every_conv
def test_a_given_graph_replaces_the_nearest_nodes(conv: type[nn.Module]) -> None:
    layer = random_layer(conv).eval()
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    nearest, graph = layer(x, return_graph=True)
    torch.testing.assert_close(layer(x, neighbors=graph.neighbors), nearest)
    lists = torch.randint(0, 9, (2, 9, 5))
    torch.testing.assert_close(layer(x, neighbors=lists), equation(layer, x, lists))
    with_gap = torch.cat((lists, torch.full((2, 9, 2), -1)), dim=2)
    torch.testing.assert_close(layer(x, neighbors=with_gap), layer(x, neighbors=lists))


@every_conv
def test_nan_in_one_node_stays_there(conv: type[nn.Module]) -> None:
    layer = random_layer(conv).eval()
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    expected = layer(x)[0]
    x[1, 4] = torch.nan
    out = layer(x)
    torch.testing.assert_close(out[0], expected)
    assert out[1].isnan().any(1).nonzero().flatten().tolist() == [4]


@every_conv
def test_trains_in_low_precision_and_round_trips(conv: type[nn.Module]) -> None:
    layer = conv(8, 12, k=3, metric="cosine", loop=False)
    assert "k=3, metric='cosine', loop=False" in repr(layer)
    x = torch.randn(4, 9, 8)
    expected = copy.deepcopy(layer)(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    torch.testing.assert_close(out.float(), expected, rtol=0.1, atol=0.1)
    out.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    other = conv(8, 12, k=3, metric="cosine", loop=False)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.eval()(x), layer.eval()(x))
    assert layer.train()(torch.zeros(0, 9, 8)).shape == (0, 9, 12)
    assert all(v.isfinite().all() for v in layer.state_dict().values())


@every_conv
def test_too_many_neighbors_are_an_error(conv: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"k must be in 1\.\.5 \(the number of nodes\), got 9"):
        conv(8, 12, k=9)(torch.zeros(2, 5, 8))
    with pytest.raises(ValueError, match="groups must divide the widths"):
        conv(8, 10, k=3)


@every_conv
def test_bad_inputs_are_named(conv: type[nn.Module]) -> None:
    layer, x = conv(8, 12, k=3), torch.zeros(2, 5, 8)
    with pytest.raises(ValueError, match=r"x must have shape \(B, N, C=8\), got \(2, 5, 12\)"):
        layer(torch.zeros(2, 5, 12))
    with pytest.raises(ValueError, match="mask must be bool"):
        layer(x, torch.ones(2, 5))
    with pytest.raises(ValueError, match=r"mask must have shape \(B=2, N=5\), got \(2, 4\)"):
        layer(x, torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"neighbors must have shape \(B=2, N=5, K\)"):
        layer(x, neighbors=torch.zeros(2, 4, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="neighbors must be int64, got torch.int32"):
        layer(x, neighbors=torch.zeros(2, 5, 3, dtype=torch.int32))


def test_exports_with_a_free_batch() -> None:
    layer = MaxRelativeGraphConv(8, 12, k=3).eval()
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(layer, (torch.randn(4, 9, 8),), dynamic_shapes={"x": {0: batch}})
    x = torch.randn(7, 9, 8)
    torch.testing.assert_close(program.module()(x), layer(x))
