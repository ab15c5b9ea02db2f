"""SelfAdjustingGCN: the paper's equations, sizes and ablations."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.layers.self_adjusting_gcn import CONVS, SelfAdjustingGCN


def small(**options) -> SelfAdjustingGCN:
    defaults = {"in_channels": 8, "out_channels": 10, "dims": (8, 16), "depths": (1, 2), "k": 3}
    layer = SelfAdjustingGCN(**defaults | options).double()
    for name, buffer in layer.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1)
    return layer


def linear_norm(part: nn.Module, x: Tensor) -> Tensor:
    out = F.conv1d(x.mT, part.weight[..., None], part.bias, groups=part.groups)
    return part.norm(out).mT


def by_the_equations(layer: SelfAdjustingGCN, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Equations 2 and 3, max-relative, evaluation mode, and the graph of every block."""
    graphs = []
    for index, stage in enumerate(layer.stages):
        x = layer.widen[index - 1](x) if index else x
        for block in stage:
            neighbors = torch.cdist(x, x).argsort(2)[..., : layer.k]
            graphs.append(neighbors)
            g = linear_norm(block.before, x)
            around = torch.stack(
                [sample[lists] for sample, lists in zip(g, neighbors, strict=True)]
            )
            relative = (around - g[:, :, None]).amax(2)
            joined = torch.stack((g, relative), dim=-1).flatten(-2)
            g = F.gelu(linear_norm(block.conv.project, joined))
            x = x + linear_norm(block.after, g)
            x = x + linear_norm(block.reduce, F.gelu(linear_norm(block.expand, x)))
    return layer.leave(x), graphs


def test_computes_the_equations() -> None:
    layer = small().eval()
    x = torch.randn(3, 7, 8, dtype=torch.float64)
    reference, graphs = by_the_equations(layer, x)
    out, got_graphs = layer(x, return_graph=True)
    torch.testing.assert_close(out, reference)
    assert len(got_graphs) == 3
    for got, expected in zip(got_graphs, graphs, strict=True):
        assert torch.equal(got.neighbors, expected)
    # Selection is not differentiated, all else is.
    leaf = x.clone().requires_grad_()
    expected_leaf = x.clone().requires_grad_()
    layer(leaf).square().sum().backward()
    by_the_equations(layer, expected_leaf)[0].square().sum().backward()
    torch.testing.assert_close(leaf.grad, expected_leaf.grad)


def test_has_the_size_that_the_paper_prints() -> None:
    """Table 8: 27.1 M and 24.2 M with backbone, landmarks and classifier (here as reconstructed).

    ResT-Lite without its head, the landmark predictor, and a per-token map to 64 before the
    12-way map of all tokens.
    """
    backbone, landmarks = 9_995_300, 2_411_746

    def classifier(tokens: int, width: int) -> int:
        return (width + 1) * 64 + (tokens * 64 + 1) * 12

    def size(out_channels: int) -> int:
        return sum(p.numel() for p in SelfAdjustingGCN(64, out_channels).parameters())

    assert size(960) == 12_246_464
    assert size(512) == 11_753_984
    full = backbone + landmarks + size(960) + classifier(56 * 56 + 18, 960)
    without_scales = backbone + landmarks + size(512) + classifier(49 + 18, 512)
    assert f"{full / 1e6:.2f} {without_scales / 1e6:.2f}" == "27.14 24.25"


@pytest.mark.parametrize("conv", CONVS)
def test_self_graph_keeps_nodes_apart(conv: str) -> None:
    alone, knn = small(conv=conv, graph="self").eval(), small(conv=conv)
    assert alone.state_dict().keys() == knn.state_dict().keys()
    x = torch.randn(2, 7, 8, dtype=torch.float64)
    changed = x.clone()
    changed[:, 2] += 1
    moved = (alone(x) != alone(changed)).any(2)
    assert moved.nonzero()[:, 1].tolist() == [2, 2]
    _, graphs = alone(x, return_graph=True)
    assert all(g.neighbors.flatten().tolist() == [*range(7)] * 2 for g in graphs)
    assert alone(x[:, :2]).shape == (2, 2, 10)  # k = 3 is not asked for


def test_fixed_graph_is_used() -> None:
    graph = torch.eye(7, dtype=torch.bool)
    graph[0, [3, 5]] = True
    graph[4] = False
    layer = small(graph=graph, depths=(1, 0)).eval()
    x = torch.randn(2, 7, 8, dtype=torch.float64)
    _, (used,) = layer(x, return_graph=True)
    assert used.neighbors[1, [0, 1, 4]].tolist() == [[0, 3, 5], [1, -1, -1], [-1, -1, -1]]
    changed = x.clone()
    changed[:, 5] += 1
    moved = (layer(x) != layer(changed)).any(2)
    assert moved[0].nonzero().flatten().tolist() == [0, 5]
    everyone = small(graph=torch.ones(7, 7, dtype=torch.bool)).eval()
    nearest = small(k=7).eval()
    nearest.load_state_dict(everyone.state_dict(), strict=False)
    torch.testing.assert_close(everyone(x), nearest(x))
    with pytest.raises(ValueError, match=r"x must have shape \(B, N=7, C\), got \(2, 6, 8\)"):
        layer(x[:, :6])


def test_the_former_name_of_block_neighbors_warns() -> None:
    layer, x = small(), torch.randn(2, 7, 8, dtype=torch.float64)
    with pytest.warns(DeprecationWarning, match="listen is called block_neighbors"):
        neighbors = layer.listen(x, None)
    assert torch.equal(neighbors, layer.block_neighbors(x))


def test_drop_path_drops_whole_branches_of_samples() -> None:
    layer = small(dims=(8,), depths=(2,), drop_path=0.5)
    first, last = layer.stages[0]
    assert (first.drop_path, last.drop_path) == (0.0, 0.5)
    layer.eval()
    x = torch.randn(40, 7, 8, dtype=torch.float64)
    neighbors = torch.cdist(x, x).argsort(2)[..., :3]
    kept = last(x, None, neighbors)
    last.training = True  # its parts stay in evaluation
    noisy = last(x, None, neighbors)
    untouched = (noisy == x).flatten(1).all(1)
    assert 0 < untouched.sum() < 40
    assert not torch.allclose(noisy[~untouched], kept[~untouched])
    last.training = False
    assert torch.equal(last(x, None, neighbors), kept)


def test_every_parameter_learns_and_the_state_round_trips() -> None:
    for conv in CONVS:
        layer = SelfAdjustingGCN(4, 10, dims=(8, 16), depths=(1, 1), k=3, conv=conv)
        x = torch.randn(4, 7, 4)
        with torch.autocast("cpu", torch.bfloat16):
            layer(x).float().square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
        other = copy.deepcopy(layer)
        other.reset_parameters()
        assert not torch.equal(other.eval()(x), layer.eval()(x))
        other.load_state_dict(layer.state_dict())
        assert torch.equal(other(x), layer(x))
        assert layer.train()(x[:0]).shape == (0, 7, 10)
    assert "4, 10, k=3, metric='l2', graph='knn'" in repr(layer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dims": (8,)}, "dims and depths must have one entry a stage, at least one, got 1 and 2"),
        ({"conv": "gat"}, "conv must be one of max_relative, edge, gin, sage, got 'gat'"),
        ({"metric": "l3"}, "metric must be one of"),
        ({"graph": "fbg"}, "graph must be one of knn, self, got 'fbg'"),
        ({"graph": torch.ones(3, 4, dtype=torch.bool)}, r"graph must be .* got .* \(3, 4\)"),
        ({"drop_path": 1.0}, r"drop_path must be in \[0, 1\), got 1.0"),
        ({"groups": 3}, "groups must divide the widths"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**arguments)


def test_too_many_neighbors_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"k must be in 1\.\.7 \(the number of nodes\), got 9"):
        small(k=9)(torch.zeros(2, 7, 8, dtype=torch.float64))
