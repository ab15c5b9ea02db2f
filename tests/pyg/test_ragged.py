"""Every relation layer on ragged graphs gives the numbers of its dense form with a mask."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import deepcopy
from importlib.util import find_spec
from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

pytest.importorskip("torch_geometric")

from torch_geometric.nn import Sequential, global_mean_pool

from aurel import layers
from aurel.ops.backend import use_backend
from aurel.ops.ragged_knn_graph import ragged_knn_graph
from aurel.pyg import OnEdges, Ragged, complete_graph, edge_index_of, neighbors_of

NODES, WIDTH, TOKENS = 6, 8, 3
BIG = 1_000_000_000
GIVEN_GRAPHS = ("AUSpecificFeatures", "CrossAttention", "MultiDimensionalEdges")  # B rows
NO_EXTENSIONS = find_spec("torch_cluster") is None or find_spec("torch_scatter") is None
needs_extensions = pytest.mark.skipif(
    NO_EXTENSIONS, reason="torch-cluster and torch-scatter: make test-pyg"
)


def convolution(name: str, **options) -> Callable[[], nn.Module]:
    return lambda: getattr(layers, name)(WIDTH, 12, k=3, **options)


CONVOLUTIONS = {
    "MaxRelativeGraphConv": convolution("MaxRelativeGraphConv"),
    "EdgeGraphConv": convolution("EdgeGraphConv", loop=False),
    "GINGraphConv": convolution("GINGraphConv", metric="l1"),
    "SAGEGraphConv": convolution("SAGEGraphConv", metric="cosine"),
}
FREE = CONVOLUTIONS | {  # layers that treat all nodes alike
    f"SelfAdjustingGCN {conv}": lambda conv=conv: layers.SelfAdjustingGCN(
        WIDTH, 10, dims=(8,), depths=(2,), k=4, conv=conv
    )
    for conv in ("max_relative", "edge")
}
FREE["SelfAdjustingGCN self"] = lambda: layers.SelfAdjustingGCN(
    WIDTH, 10, dims=(8, 12), depths=(1, 1), graph="self"
)
FREE["NodeTransformer"] = lambda: layers.NodeTransformer(WIDTH, 10, 2, heads=2, head_dim=4)
REGIONS = (0, 0, 1, 1, 2, 2)
PER_AU = {
    "NodeEmbedding": lambda: layers.NodeEmbedding(WIDTH, NODES),
    "TopKGraphConv": lambda: layers.TopKGraphConv(WIDTH, NODES, k=3),
    "TopKGraphConv all": lambda: layers.TopKGraphConv(WIDTH, NODES, k=3, ties="all"),
    "SelfAdjustingGCN fixed": lambda: layers.SelfAdjustingGCN(
        WIDTH, 10, (8,), (1,), graph=torch.eye(NODES).roll(1, 0) + torch.eye(NODES) > 0
    ),
    "PairMessages": lambda: layers.PairMessages(WIDTH, NODES),
    "CrossAttention": lambda: layers.CrossAttention(WIDTH),
    "CrossRegionGAT": lambda: layers.CrossRegionGAT(WIDTH, REGIONS, heads=2),
    "MultiDimensionalEdges": lambda: layers.MultiDimensionalEdges(WIDTH, NODES),
    "GatedEdgeGCN": lambda: layers.GatedEdgeGCN(WIDTH, NODES),
    "CosineClassifier": lambda: layers.CosineClassifier(WIDTH, NODES),
    "PairwiseInference": lambda: layers.PairwiseInference(NODES),
    "AUSpecificFeatures": lambda: layers.AUSpecificFeatures(5, 4, NODES),
}


def random_layer(make: Callable[[], nn.Module], training: bool) -> nn.Module:
    layer = make().double().train(training)
    with torch.no_grad():
        for name, tensor in (*layer.named_parameters(), *layer.named_buffers()):
            if tensor.is_floating_point() and ("norm" in name or tensor.ndim < 2):
                tensor.uniform_(0.5, 1.5)
    return layer


def random_inputs(name: str, mask: Tensor) -> tuple[list[Tensor], list[str]]:
    """Dense arguments, NaN where absent, and what their leading dimensions are."""
    graphs, nodes = mask.shape
    if name == "AUSpecificFeatures":
        return [torch.randn(graphs, TOKENS, 5).double()], ["graph"]
    if name == "MultiDimensionalEdges":
        x = torch.randn(graphs, nodes, TOKENS, WIDTH).double()
        return [spoil(x, mask), torch.randn(graphs, TOKENS, WIDTH).double()], ["node", "graph"]
    if name == "PairwiseInference":
        return [spoil(torch.randn(graphs, nodes).double(), mask)], ["node"]
    x = spoil(torch.randn(graphs, nodes, WIDTH).double(), mask)
    if name == "CrossAttention":
        return [x, torch.randn(graphs, TOKENS, WIDTH).double()], ["node", "graph"]
    if name == "GatedEdgeGCN":
        pairs = mask[:, :, None] & mask[:, None]
        return [x, spoil(torch.randn(*pairs.shape, WIDTH).double(), pairs)], ["node", "pair"]
    if name == "CrossRegionGAT":
        return [x, torch.randn(graphs, nodes).double()], ["node", "node"]
    return [x], ["node"]


def spoil(x: Tensor, exists: Tensor) -> Tensor:
    return x.masked_fill(~exists[(..., *[None] * (x.ndim - exists.ndim))], torch.nan)


def rows(dense: Tensor, form: str, mask: Tensor) -> Tensor:
    """Return the valid elements of a dense tensor, in the order of nodes and complete graphs."""
    if form == "graph":
        return dense
    return dense[mask if form == "node" else mask[:, :, None] & mask[:, None]]


def assert_agrees(
    name: str, make: Callable[[], nn.Module], mask: Tensor, training: bool, slots: bool
) -> None:
    layer = random_layer(make, training)
    ragged, dense = Ragged(deepcopy(layer)), deepcopy(layer)
    inputs, forms = random_inputs(name, mask)
    given = [rows(part, form, mask) for part, form in zip(inputs, forms, strict=True)]
    for part in (*inputs, *given):
        part.requires_grad_()
    batch, slot = mask.nonzero(as_tuple=True)
    other = given[1] if len(given) > 1 else None
    outs = ragged(given[0], batch, slot if slots else None, other)
    expected_parts = dense(*inputs, mask=mask)
    outs, expected_parts = (
        part if isinstance(part, tuple) else (part,) for part in (outs, expected_parts)
    )
    losses = []
    for out, expected, form in zip(outs, expected_parts, ragged.outputs, strict=True):
        torch.testing.assert_close(out, rows(expected, form, mask), rtol=1e-9, atol=1e-9)
        weight = torch.randn_like(out)
        losses.append(((out * weight).sum(), (rows(expected, form, mask) * weight).sum()))
    grads = [
        torch.autograd.grad(
            sum(pair[side] for pair in losses),
            [*leaves, *owner.parameters()],
            allow_unused=True,
            materialize_grads=True,
        )
        for side, leaves, owner in ((0, given, ragged), (1, inputs, dense))
    ]
    names = [*forms, *(parameter for parameter, _ in dense.named_parameters())]
    for index, (leaf, got, expected) in enumerate(zip(names, *grads, strict=True)):
        expected = rows(expected, leaf, mask) if index < len(forms) else expected
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8, msg=lambda m, n=leaf: n + m)
    for key, buffer in dense.named_buffers():
        if buffer.is_floating_point():
            torch.testing.assert_close(ragged.get_buffer(f"layer.{key}"), buffer)


@pytest.mark.parametrize("name", FREE)
@given(
    sizes=st.lists(st.integers(0, 7), min_size=1, max_size=4),
    training=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_any_number_of_nodes(name: str, sizes: list[int], training: bool, seed: int) -> None:
    """Empty graphs, single nodes and fewer nodes than neighbors among them."""
    torch.manual_seed(seed)
    nodes = max(*sizes, 5)
    mask = torch.arange(nodes) < torch.tensor(sizes)[:, None]
    assert_agrees(name, FREE[name], mask, training, slots=False)


@pytest.mark.parametrize("name", PER_AU)
@given(
    present=st.lists(st.lists(st.booleans(), min_size=NODES, max_size=NODES), min_size=1),
    training=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_absent_action_units(
    name: str, present: list[list[bool]], training: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    assert_agrees(name, PER_AU[name], torch.tensor(present[:4]), training, slots=True)


@pytest.mark.parametrize("name", PER_AU)
def test_complete_faces_need_no_slots(name: str) -> None:
    mask = torch.ones(3, NODES, dtype=torch.bool)
    assert_agrees(name, PER_AU[name], mask, training=True, slots=False)


def test_every_layer_with_a_mask_is_served_but_one() -> None:
    masked = {
        name
        for name in layers.__all__
        if "mask" in inspect.signature(getattr(layers, name).forward).parameters
    }
    assert masked - {name.split()[0] for name in FREE | PER_AU} == {"TokenFusion"}
    with pytest.raises(ValueError, match="nodes and a mask alone, got TokenFusion"):
        Ragged(layers.TokenFusion(WIDTH))


@pytest.mark.parametrize("name", FREE | PER_AU)
def test_bfloat16(name: str) -> None:
    mask = torch.tensor([[True] * 6, [False] * 6, [False, True, True, False, True, True]])
    layer = random_layer((FREE | PER_AU)[name], training=False).bfloat16()
    inputs, forms = random_inputs(name, mask)
    inputs = [part.bfloat16() for part in inputs]
    given = [rows(part, form, mask) for part, form in zip(inputs, forms, strict=True)]
    ragged = Ragged(layer)
    outs = ragged(given[0], *mask.nonzero(as_tuple=True), *given[1:])
    expected_parts = layer(*inputs, mask=mask)
    outs, expected_parts = (
        part if isinstance(part, tuple) else (part,) for part in (outs, expected_parts)
    )
    for out, expected, form in zip(outs, expected_parts, ragged.outputs, strict=True):
        torch.testing.assert_close(out, rows(expected, form, mask), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", PER_AU)
def test_order_of_nodes_within_a_graph_is_free(name: str) -> None:
    """A node is known by its slot, pairs of nodes by the order of their nodes."""
    mask = torch.tensor([[True] * 6, [False, True, True, False, True, True]])
    layer = Ragged(random_layer(PER_AU[name], training=False))
    inputs, forms = random_inputs(name, mask)
    batch, slot = mask.nonzero(as_tuple=True)
    order = torch.tensor([3, 0, 5, 1, 4, 2, 9, 7, 6, 8])
    place = order.argsort()
    before, after = complete_graph(batch), order[complete_graph(batch)]
    number = {tuple(pair): index for index, pair in enumerate(before.t().tolist())}
    moved_pairs = torch.tensor([number[tuple(pair)] for pair in after.t().tolist()])
    assert torch.equal(place[order], torch.arange(10))
    picked = {"graph": slice(None), "node": order, "pair": moved_pairs}
    given = [rows(part, form, mask) for part, form in zip(inputs, forms, strict=True)]
    moved = [part[picked[form]] for part, form in zip(given, forms, strict=True)]
    expected_parts = layer(given[0], batch, slot, *given[1:])
    outs = layer(moved[0], batch, slot[order], *moved[1:])
    outs, expected_parts = (
        part if isinstance(part, tuple) else (part,) for part in (outs, expected_parts)
    )
    for out, expected, form in zip(outs, expected_parts, layer.outputs, strict=True):
        torch.testing.assert_close(out, expected[picked[form]])


@pytest.mark.parametrize("name", FREE)
def test_graphs_do_not_meet(name: str) -> None:
    layer = Ragged(random_layer(FREE[name], training=False))
    batch = torch.tensor([0, 0, 2, 2, 2, 2, 2, 5])
    x = torch.randn(8, WIDTH, dtype=torch.float64)
    expected = layer(x, batch)
    x[2:7] = torch.nan
    out = layer(x, batch)
    torch.testing.assert_close(out[[0, 1, 7]], expected[[0, 1, 7]])
    torch.testing.assert_close(layer(x[:2]), expected[:2])  # without a batch: one graph


@pytest.mark.parametrize("name", [name for name in (*FREE, *PER_AU) if name not in GIVEN_GRAPHS])
def test_numbers_of_graphs_cost_nothing(name: str) -> None:
    """Numbers up to a thousand million give what consecutive numbers give."""
    layer = Ragged(random_layer((FREE | PER_AU)[name], training=True))
    mask = torch.tensor([[True] * 6, [True] * 6, [False] * 6, [True] * 6])
    inputs, forms = random_inputs(name, mask)
    given = [rows(part, form, mask) for part, form in zip(inputs, forms, strict=True)]
    batch, slot = mask.nonzero(as_tuple=True)
    expected, expected_graph = run(deepcopy(layer), given, batch, slot)
    out, graph = run(layer, given, torch.tensor([0, 7, 8, BIG])[batch], slot)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(graph, expected_graph)


def run(layer: Ragged, given: list[Tensor], batch: Tensor, slot: Tensor) -> tuple:
    if name_of(layer) in ("CosineClassifier", "NodeEmbedding"):
        return layer(given[0], batch, slot), None
    return layer(given[0], batch, slot, *given[1:], return_graph=True)


def name_of(layer: Ragged) -> str:
    return type(layer.layer).__name__


@pytest.mark.parametrize("name", ["NodeTransformer", "EdgeGraphConv"])
def test_memory_follows_the_nodes(name: str) -> None:
    """Padded to the size of the largest graph, nodes alone would take 300 times as much."""
    layer = Ragged(FREE[name]()).eval()
    batch = torch.cat((torch.arange(1200), torch.full((300,), BIG)))
    x = torch.randn(len(batch), WIDTH)
    layer(x, batch)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as prof:
        out = layer(x, batch)
    events = prof.profiler.kineto_results.events()
    allocations = [event for event in events if event.name() == "[memory]"]
    allocations.sort(key=lambda event: event.start_ns())
    assert max(accumulate(event.nbytes() for event in allocations)) < 150 * 4 * x.numel()
    torch.testing.assert_close(out[-300:], layer(x[-300:]))
    torch.testing.assert_close(out[5:6], layer(x[5:6]))


def test_a_graph_that_was_not_given_is_named() -> None:
    layer = Ragged(PER_AU["CrossAttention"]())
    with pytest.raises(ValueError, match="batch must number 2 graphs, got 1000000001"):
        layer(torch.randn(3, WIDTH), torch.tensor([0, 0, BIG]), None, torch.randn(2, 4, WIDTH))


def test_paths_are_dropped_from_whole_graphs() -> None:
    layer = layers.SelfAdjustingGCN(WIDTH, 10, (8,), (3,), k=2, drop_path=0.8).double()
    mask = torch.tensor([[True] * 4, [True, True, False, False], [True, False, False, False]] * 3)
    x = torch.randn(9, 4, WIDTH, dtype=torch.float64)
    torch.manual_seed(1)
    out = Ragged(deepcopy(layer))(x[mask], mask.nonzero()[:, 0])
    torch.manual_seed(1)
    torch.testing.assert_close(out, layer(x, mask)[mask], rtol=1e-9, atol=1e-9)


SERVED = {  # by the nearest in l2
    **{name: convolution(name, loop=name != "EdgeGraphConv") for name in CONVOLUTIONS},
    "SelfAdjustingGCN": FREE["SelfAdjustingGCN max_relative"],
}


@needs_extensions
@pytest.mark.parametrize("name", SERVED)
@settings(max_examples=200, deadline=None)
@given(sizes=st.lists(st.integers(0, 7), min_size=1, max_size=4), seed=st.integers(0, 10**6))
def test_torch_cluster_and_torch_scatter_serve(name: str, sizes: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    layer = random_layer(SERVED[name], training=True)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    x = torch.randn(len(batch), WIDTH, dtype=torch.float64, requires_grad=True)
    results = []
    for backend in ("torch", "pyg"):
        ragged = Ragged(deepcopy(layer))
        with use_backend(backend):
            out = ragged(x, batch)
            grads = torch.autograd.grad(
                out.square().sum(),
                [x, *ragged.parameters()],
                allow_unused=True,  # by no node at all
                materialize_grads=True,
            )
        results.append((out, *grads))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)


def test_runs_in_a_sequential_among_their_layers() -> None:
    model = Sequential(
        "x, batch",
        [
            (Ragged(layers.MaxRelativeGraphConv(WIDTH, 12, k=3)), "x, batch -> x"),
            nn.Dropout(0.1),
            (Ragged(layers.SelfAdjustingGCN(12, 16, (8,), (1,), k=2)), "x, batch -> x"),
            (global_mean_pool, "x, batch -> x"),
            nn.Linear(16, 2),
        ],
    ).eval()
    x, batch = torch.randn(9, WIDTH), torch.tensor([0, 0, 0, 0, 1, 2, 2, 2, 2])
    out = model(x, batch)
    assert out.shape == (3, 2)
    first, second = model[0].layer, model[2].layer
    alone = second(first(x[None, :4]))[0].mean(0)
    torch.testing.assert_close(out[0], model[4](alone))
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_given_edges_run_in_a_sequential() -> None:
    model = Sequential(
        "x, edge_index",
        [
            (OnEdges(layers.GINGraphConv(WIDTH, WIDTH, k=3)), "x, edge_index -> x"),
            nn.ReLU(),
            (OnEdges(layers.SAGEGraphConv(WIDTH, 12, k=3)), "x, edge_index -> x"),
        ],
    ).eval()
    x, batch = torch.randn(7, WIDTH), torch.tensor([0, 0, 0, 0, 1, 1, 1])
    edge_index = edge_index_of(ragged_knn_graph(x, batch, 2))
    lists = neighbors_of(edge_index, 7)[None]
    expected = model[2].layer(model[0].layer(x[None], neighbors=lists).relu(), neighbors=lists)[0]
    torch.testing.assert_close(model(x, edge_index), expected)


def test_the_weights_are_the_layers_own() -> None:
    layer = layers.TopKGraphConv(WIDTH, NODES)
    ragged = Ragged(layer)
    assert [*ragged.parameters()] == [*layer.parameters()]
    other = Ragged(layers.TopKGraphConv(WIDTH, NODES))
    other.load_state_dict({f"layer.{key}": value for key, value in layer.state_dict().items()})
    assert torch.equal(other.layer.project.weight, layer.project.weight)


GRAPHLESS = ("CosineClassifier", "AUSpecificFeatures", "CrossAttention", "NodeEmbedding")


@pytest.mark.parametrize("name", [name for name in (*FREE, *PER_AU) if name not in GRAPHLESS])
def test_returns_the_graph(name: str) -> None:
    layer = random_layer({**FREE, **PER_AU}[name], training=False)
    present = [[True] * 6, [True, True, False, False, False, False], [False] * 6]
    if name in PER_AU:
        present[1] = [False, True, False, True, True, False]
    mask = torch.tensor(present)
    inputs, forms = random_inputs(name, mask)
    given = [rows(part, form, mask) for part, form in zip(inputs, forms, strict=True)]
    batch, slot = mask.nonzero(as_tuple=True)
    slot = slot if name in PER_AU else None
    out, graphs = Ragged(layer)(given[0], batch, slot, *given[1:], return_graph=True)
    _, expected_parts = layer(*inputs, mask=mask, return_graph=True)
    assert len(out) == 2 or out.shape[0] in (len(batch), 45)
    graphs = graphs if isinstance(graphs[0], tuple) else (graphs,)
    expected_parts = expected_parts if isinstance(expected_parts, tuple) else (expected_parts,)
    for (edge_index, weight), expected in zip(graphs, expected_parts, strict=True):
        dense = torch.zeros(len(batch), len(batch), dtype=weight.dtype)
        dense[edge_index[1], edge_index[0]] = weight
        adjacency = expected.adjacency().to(weight.dtype)
        blocks = [a[m][:, m] for a, m in zip(adjacency, mask, strict=True)]
        torch.testing.assert_close(dense, torch.block_diag(*blocks[:2]))


@pytest.mark.parametrize("name", SERVED)
def test_compiles_whole(name: str) -> None:
    layer = Ragged(SERVED[name]()).eval()
    x, batch = torch.randn(9, WIDTH), torch.tensor([0, 0, 0, 0, 1, 2, 2, 2, 2])
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, batch), layer(x, batch))


def test_edges_and_lists_are_each_others_inverse() -> None:
    rng = np.random.default_rng(0)
    lists = torch.tensor([[2, 0, -1], [-1, -1, -1], [1, 2, 0], [3, -1, -1]])
    edges = edge_index_of(lists)
    assert edges.tolist() == [[2, 0, 1, 2, 0, 3], [0, 0, 2, 2, 2, 3]]
    assert torch.equal(neighbors_of(edges, 4), lists)
    shuffled = edges[:, torch.from_numpy(rng.permutation(6))]
    assert torch.equal(neighbors_of(shuffled, 4).sort().values, lists.sort().values)
    assert neighbors_of(edges[:, :0], 3).tolist() == [[-1]] * 3
    assert neighbors_of(edges[:, :0], 0).shape == (0, 1)


def test_complete_graph() -> None:
    assert complete_graph(torch.tensor([0, 0, 2])).tolist() == [[0, 1, 0, 1, 2], [0, 0, 1, 1, 2]]
    assert complete_graph(torch.tensor([3, 3, BIG])).tolist() == [[0, 1, 0, 1, 2], [0, 0, 1, 1, 2]]
    assert complete_graph(torch.zeros(0, dtype=torch.int64)).shape == (2, 0)
    with pytest.raises(ValueError, match="batch must be sorted"):
        complete_graph(torch.tensor([1, 0]))


X, BATCH = torch.zeros(4, WIDTH), torch.tensor([0, 0, 0, 1])
EDGES = torch.tensor([[0, 1, 2], [1, 0, 1]])


@pytest.mark.parametrize(
    ("layer", "arguments", "message"),
    [
        (
            "TopKGraphConv",
            (X, BATCH),
            "slot must be a tensor where graphs have fewer than 6 nodes, got None",
        ),
        ("TopKGraphConv", (X, BATCH, BATCH), "slot must differ between nodes of a graph"),
        ("TopKGraphConv", (X, BATCH, BATCH + 5), r"slot must lie in 0\.\.5, got 5\.\.6"),
        ("TopKGraphConv", (X, BATCH, BATCH[1:]), r"slot must have shape \(M=4\), got \(3,\)"),
        ("TopKGraphConv", (X, BATCH[1:]), r"batch must have shape \(P=4\), got \(3,\)"),
        (
            "TopKGraphConv",
            (X, BATCH.flip(0)),
            "batch must be sorted",
        ),
        ("TopKGraphConv", (X, BATCH, None, X), "other must be None for TopKGraphConv, got Tensor"),
        ("TopKGraphConv", (X[:, 1:], BATCH, torch.arange(4)), r"x must have shape \(B, N=6, C=8\)"),
        ("AUSpecificFeatures", (X,), "batch must be a tensor for a layer of tokens, got None"),
        ("AUSpecificFeatures", (torch.zeros(1, 3, 5), BATCH, torch.arange(4)), "batch must number"),
        ("GatedEdgeGCN", (X, BATCH, torch.arange(4), X), "edges must be all 10 pairs .* got 4"),
        (
            "GatedEdgeGCN",
            (X, BATCH, torch.arange(4)),
            "other must be a tensor for GatedEdgeGCN, got None",
        ),
        ("TopKGraphConv", (X, BATCH, BATCH.int()), r"slot must be int64 .* got torch\.int32"),
        ("EdgeGraphConv", (X, BATCH, None, X), "other must be None for EdgeGraphConv, got Tensor"),
        ("EdgeGraphConv", (X[None], BATCH), r"x must have shape \(M, C=8\), got \(1, 4, 8\)"),
        (
            "EdgeGraphConv",
            (X, BATCH.flip(0)),
            "batch must be sorted",
        ),
    ],
)
def test_bad_arguments_are_named(layer: str, arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ragged((FREE | PER_AU)[layer]())(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[:, 1:], EDGES), r"x must have shape \(M, C=8\), got \(4, 7\)"),
        ((X, EDGES[0]), r"edge_index must have shape \(2=2, E\), got \(3,\)"),
        ((X, EDGES.double()), r"edge_index must be int64, got torch\.float64"),
        ((X, EDGES + 2), r"edge_index must name nodes 0\.\.3, got 2\.\.4"),
        ((X, -EDGES), r"edge_index must name nodes 0\.\.3, got -2\.\.0"),
    ],
)
def test_bad_edges_are_named(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OnEdges(CONVOLUTIONS["EdgeGraphConv"]())(*arguments)


def test_bad_layers_are_named() -> None:
    with pytest.raises(ValueError, match="layer must take a mask .* got PerAUTemporalConv"):
        Ragged(layers.PerAUTemporalConv(4, 3))
    with pytest.raises(ValueError, match="layer must be one of Max.*Conv, got TopKGraphConv"):
        OnEdges(layers.TopKGraphConv(4, 3, k=2))
