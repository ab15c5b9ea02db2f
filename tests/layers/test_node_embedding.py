"""Node embeddings: one vector a node, alone and as an option of every graph layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aurel import layers
from aurel.pyg import OnEdges, Ragged

WIDTH, NODES = 8, 5
SIZED = {"node_embedding": True, "num_nodes": NODES}
LAYERS: dict[str, Any] = {
    "TopKGraphConv": lambda **o: layers.TopKGraphConv(WIDTH, NODES, 2, **o),
    "CrossRegionGAT": lambda **o: layers.CrossRegionGAT(
        WIDTH, range(NODES), edges="fully_connected", **o
    ),
    "GatedEdgeGCN": lambda **o: layers.GatedEdgeGCN(WIDTH, NODES, **o),
}
FREE: dict[str, Any] = {
    "SelfAdjustingGCN": lambda **o: layers.SelfAdjustingGCN(WIDTH, WIDTH, (8,), (1,), 2, **o),
    "NodeTransformer": lambda **o: layers.NodeTransformer(WIDTH, WIDTH, 1, 2, **o),
    **{
        name: lambda name=name, **o: getattr(layers, name)(WIDTH, WIDTH, 2, **o)
        for name in ("MaxRelativeGraphConv", "EdgeGraphConv", "GINGraphConv", "SAGEGraphConv")
    },
}


def call(layer: nn.Module, x: Tensor, mask: Tensor | None = None) -> Tensor:
    if isinstance(layer, layers.GatedEdgeGCN):
        edges = torch.linspace(-1, 1, NODES * NODES * WIDTH).view(1, NODES, NODES, WIDTH)
        return layer(x, edges.expand(len(x), -1, -1, -1), mask)[0]
    return layer(x, mask=mask)


def test_each_node_gets_a_vector_of_its_own() -> None:
    layer = layers.NodeEmbedding(WIDTH, NODES)
    x, mask = torch.randn(2, NODES, WIDTH), torch.tensor([[True] * 4 + [False], [True] * 5])
    assert torch.equal(layer(x), x + layer.weight)
    absent = x.clone()
    absent[0, 4] = torch.nan
    out = layer(absent, mask)
    assert torch.equal(out[1], x[1] + layer.weight) and not out[0, 4].any()
    out.sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[2.0] * WIDTH] * 4 + [[1.0] * WIDTH]


@pytest.mark.parametrize("name", [*LAYERS, *FREE])
def test_the_option_adds_the_vectors_to_the_input(name: str) -> None:
    """State dicts without it are those of before."""
    torch.manual_seed(0)
    options = {"node_embedding": True} if name in LAYERS else SIZED
    make = {**LAYERS, **FREE}[name]
    embedded, plain = make(**options).eval(), make().eval()
    state = embedded.state_dict()
    vectors = state.pop("embedding.weight")
    plain.load_state_dict(state)
    x = torch.randn(3, NODES, WIDTH)
    assert torch.equal(call(embedded, x), call(plain, x + vectors))
    mask = torch.tensor([[True, True, True, True, False]] * 3)
    torch.testing.assert_close(call(embedded, x, mask), call(plain, x + vectors, mask))
    assert vectors.std() == pytest.approx(0.1, rel=0.5)
    with torch.no_grad():
        embedded.embedding.weight.fill_(9.0)
    embedded.reset_parameters()
    assert embedded.embedding.weight.abs().max() < 1


@pytest.mark.parametrize("name", FREE)
def test_layers_for_any_number_of_nodes_need_it(name: str) -> None:
    with pytest.raises(ValueError, match="num_nodes must be given with node_embedding=True"):
        FREE[name](node_embedding=True)
    with pytest.raises(ValueError, match="x must have shape"):
        FREE[name](**SIZED)(torch.randn(2, NODES + 1, WIDTH))


def test_layers_that_treat_all_nodes_alike_then_distinguish_them() -> None:
    """Nodes of equal features give equal results only without the vectors."""
    x = torch.ones(1, NODES, WIDTH)
    for make in FREE.values():
        torch.manual_seed(0)
        plain, embedded = make().eval()(x)[0], make(**SIZED).eval()(x)[0]
        assert torch.allclose(plain, plain[:1].expand_as(plain), atol=1e-6)
        assert (embedded[0] - embedded[1]).abs().max() > 1e-3


def test_ragged_graphs_refuse_what_numbers_the_nodes_of_a_batch() -> None:
    for name in ("SelfAdjustingGCN", "MaxRelativeGraphConv"):
        with pytest.raises(ValueError, match="layer must have no node embedding"):
            Ragged(FREE[name](**SIZED))
    with pytest.raises(ValueError, match="layer must have no node embedding"):
        OnEdges(FREE["GINGraphConv"](**SIZED))


def test_gated_messages_without_the_division_are_n_times_as_strong() -> None:
    """The same as weights of the messages that are N times as large."""
    torch.manual_seed(0)
    divided = layers.GatedEdgeGCN(WIDTH, NODES).eval()
    whole = layers.GatedEdgeGCN(WIDTH, NODES, divide_messages=False).eval()
    state = {
        key: value / NODES if key.endswith("message.weight") else value
        for key, value in divided.state_dict().items()
    }
    whole.load_state_dict(state)
    x = torch.randn(2, NODES, WIDTH)
    torch.testing.assert_close(call(whole, x), call(divided, x))
    with pytest.raises(AssertionError):
        whole.load_state_dict(divided.state_dict())
        torch.testing.assert_close(call(whole, x), call(divided, x))
