"""CrossRegionGAT: equal to the authors' layer, and to the equation for each edge strategy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from aurel.graph import RelationGraph
from aurel.layers.cross_region_gat import CrossRegionGAT
from aurel.models.author_keys.mdhr import cross_region_gat

Golden = Callable[[str], dict[str, np.ndarray]]

BP4D = (0, 0, 0, 1, 0, 3, 2, 2, 2, 3, 3, 3)  # AU 1 2 4 6 7 10 12 14 15 17 23 24
DISFA = (0, 0, 0, 1, 1, 2, 2, 2)  # AU 1 2 4 6 9 12 25 26
SMALL = (0, 0, 1, 1, 2)
STRATEGIES = ("fully_connected", "same_region", "cross_region", "active", "active_cross_region")


def tensors(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): torch.from_numpy(array)
        for key, array in arrays.items()
        if key.startswith(prefix)
    }


def assert_equals_golden(
    arrays: dict[str, np.ndarray],
    layer: CrossRegionGAT,
    mode: str,
    run: Callable[[Tensor], Tensor],
) -> None:
    """Compare output, gradient of the nodes and gradient of every parameter."""
    layer.load_state_dict(cross_region_gat(tensors(arrays, "param.")))
    layer.train(mode == "train")
    x = torch.from_numpy(arrays["input.x"]).requires_grad_()
    out = run(x)
    torch.testing.assert_close(out, torch.from_numpy(arrays[f"{mode}.out.0"]), rtol=0, atol=1e-9)
    out.backward(torch.from_numpy(arrays["cotangent.0"]))
    assert x.grad is not None
    expected = torch.from_numpy(arrays[f"{mode}.grad.input.x"])
    torch.testing.assert_close(x.grad, expected, rtol=0, atol=1e-9)
    gradients = cross_region_gat(tensors(arrays, f"{mode}.grad.param."))
    assert gradients.keys() == dict(layer.named_parameters()).keys()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=0, atol=1e-9)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize(
    ("name", "regions"), [("cross_region_bp4d", BP4D), ("cross_region_disfa", DISFA)]
)
def test_equals_the_authors_module(
    golden: Golden, name: str, regions: tuple[int, ...], mode: str
) -> None:
    arrays = golden(name)
    layer = CrossRegionGAT(32, regions).double()
    active = torch.from_numpy(arrays["input.active"]).squeeze(1)
    assert_equals_golden(arrays, layer, mode, lambda x: layer(x, active))


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize(("name", "heads"), [("masked_gat", 1), ("masked_gat_4heads", 4)])
def test_equals_the_authors_attention(golden: Golden, name: str, heads: int, mode: str) -> None:
    arrays = golden(name)
    layer = CrossRegionGAT(32, BP4D, heads).double()
    adjacency = torch.from_numpy(arrays["input.adj"])
    assert_equals_golden(arrays, layer, mode, lambda x: layer.attend(x, adjacency)[0])


def is_source(strategy: str, active: np.ndarray, n: int, m: int) -> bool:
    other = SMALL[n] != SMALL[m]
    return (
        n == m
        or {
            "fully_connected": True,
            "same_region": not other,
            "cross_region": other,
            "active": bool(active[m]),
            "active_cross_region": bool(active[m]) and other,
        }[strategy]
    )


def oracle(layer: CrossRegionGAT, x: Tensor, active: Tensor) -> np.ndarray:
    """Follow equation 9 node by node, in float64."""
    state = {name: value.detach().double().numpy() for name, value in layer.named_parameters()}
    nodes = x.double().numpy()
    out = np.zeros_like(nodes)
    width = layer.channels // layer.heads
    for b, n in np.ndindex(*nodes.shape[:2]):
        neighbors = [
            m for m in range(len(SMALL)) if is_source(layer.edges, active[b].numpy(), n, m)
        ]
        z = nodes[b] @ state["linear.weight"].T
        for h in range(layer.heads):
            part = slice(h * width, (h + 1) * width)
            score = z[n, part] @ state["target_attention"][h]
            score = score + z[neighbors, part] @ state["source_attention"][h]
            weight = np.exp(np.where(score > 0, score, 0.2 * score))
            out[b, n, part] = weight / weight.sum() @ z[neighbors, part]
    out = out + nodes + state["bias"]
    return np.where(out > 0, out, np.expm1(out))


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_equals_the_equation(strategy: str, heads: int) -> None:
    layer = CrossRegionGAT(6, SMALL, heads, strategy).double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(4, 5, 6, dtype=torch.float64)
    active = torch.randint(0, 2, (4, 5))
    expected = oracle(layer, x, active)
    np.testing.assert_allclose(layer(x, active).detach().numpy(), expected, atol=1e-12)
    for kind in (active.bool(), active.float()):
        np.testing.assert_allclose(layer(x, kind).detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_graph_has_the_edges_of_the_strategy(strategy: str) -> None:
    layer = CrossRegionGAT(6, SMALL, 2, strategy)
    active = torch.tensor([[1, 0, 0, 1, 0]])
    out, graph = layer(torch.randn(1, 5, 6), active, return_graph=True)
    assert isinstance(graph, RelationGraph) and out.shape == (1, 5, 6)
    weights = graph.adjacency()[0]
    for n, m in np.ndindex(5, 5):
        assert bool(weights[n, m] > 0) == is_source(strategy, active[0].numpy(), n, m)
    torch.testing.assert_close(weights.sum(-1), torch.ones(5))


def test_nan_reaches_only_its_targets() -> None:
    layer = CrossRegionGAT(4, SMALL, edges="same_region")
    x = torch.randn(2, 5, 4)
    clean = layer(x)
    x[0, 2] = torch.nan
    out = layer(x)
    torch.testing.assert_close(out[0, [0, 1, 4]], clean[0, [0, 1, 4]])
    torch.testing.assert_close(out[1], clean[1])
    assert out[0, [2, 3]].isnan().all()


def test_gradcheck() -> None:
    layer = CrossRegionGAT(4, SMALL, 2).double()
    x = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    active = torch.tensor([[1, 0, 1, 0, 1], [0, 0, 0, 0, 0]])
    assert torch.autograd.gradcheck(lambda nodes: layer(nodes, active), x)


def test_every_parameter_learns() -> None:
    layer = CrossRegionGAT(8, SMALL, 2)
    layer(torch.randn(3, 5, 8), torch.ones(3, 5)).square().sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0


def test_initial_weights_have_the_authors_bounds() -> None:
    torch.manual_seed(1)
    layer = CrossRegionGAT(512, BP4D, 4)
    # Xavier of (1, 4, 128) has the fans 4 * 128 and 1 * 128; of (512, 512), 512 twice.
    for tensor, fans in ((layer.target_attention, 640), (layer.linear.weight, 1024)):
        bound = (6 / fans) ** 0.5
        assert 0.95 * bound < tensor.abs().max() <= bound
    assert not layer.bias.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_half_precision(dtype: torch.dtype) -> None:
    layer = CrossRegionGAT(16, BP4D, 2)
    x, active = torch.randn(2, 12, 16), torch.ones(2, 12)
    expected = layer(x, active)
    with torch.autocast("cpu", dtype):
        torch.testing.assert_close(layer(x, active).float(), expected, rtol=0.05, atol=0.05)
    half = layer.to(dtype)(x.to(dtype), active)
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), expected, rtol=0.05, atol=0.05)


def test_state_dict_holds_the_learned_tensors_only() -> None:
    names = ["target_attention", "source_attention", "bias", "linear.weight"]
    assert list(CrossRegionGAT(4, SMALL).state_dict()) == names


def test_compiles_and_exports() -> None:
    layer = CrossRegionGAT(4, SMALL, 2)
    x, active = torch.randn(3, 5, 4), torch.ones(3, 5)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, active), layer(x, active))
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(
        layer, (x, active), dynamic_shapes={"x": {0: batch}, "active": {0: batch}}
    )
    again = torch.randn(7, 5, 4), torch.zeros(7, 5)
    torch.testing.assert_close(program.module()(*again), layer(*again))


def test_empty_batch() -> None:
    assert CrossRegionGAT(4, SMALL)(torch.empty(0, 5, 4), torch.empty(0, 5)).shape == (0, 5, 4)


def test_repr_and_errors() -> None:
    layer = CrossRegionGAT(4, SMALL, 2)
    assert "4, regions=(0, 0, 1, 1, 2), heads=2, edges='active_cross_region'" in repr(layer)
    x = torch.randn(2, 5, 4)
    with pytest.raises(
        ValueError, match="active must be a tensor with edges='active_cross_region', got None"
    ):
        layer(x)
    with pytest.raises(ValueError, match=r"active must have shape \(B=2, N=5\), got \(2, 1, 5\)"):
        layer(x, torch.ones(2, 1, 5))
    with pytest.raises(ValueError, match=r"x must have shape \(B, N=5, C=4\), got \(2, 6, 4\)"):
        layer(torch.randn(2, 6, 4), torch.ones(2, 6))
    with pytest.raises(ValueError, match="mask must be bool"):
        layer(x, torch.ones(2, 5), mask=torch.ones(2, 5))
    with pytest.raises(ValueError, match="edges must be one of fully_connected, .*, got 'all'"):
        CrossRegionGAT(4, SMALL, edges="all")
    with pytest.raises(ValueError, match="heads must divide channels=4, got 3"):
        CrossRegionGAT(4, SMALL, heads=3)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_absent_nodes_have_no_edges(strategy: str) -> None:
    x, mask = torch.randn(2, 5, 6), torch.tensor([[True, False, True, True, False]] * 2)
    _, graph = CrossRegionGAT(6, SMALL, 2, strategy)(x, torch.ones(2, 5), mask, return_graph=True)
    weights = graph.adjacency()
    assert not weights[~mask].any() and not weights.mT[~mask].any()
