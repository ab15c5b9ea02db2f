"""Invariances of every op: to permutations, other graphs, absent nodes; metrics and K."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from helpers import graph_forms as forms
from helpers.graph_forms import Part
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aurel import ops

METRICS = ("l2", "l1", "cosine", "dot")


@dataclass
class Size:
    batch: int
    nodes: int
    channels: int
    k: int
    metric: str
    loop: bool
    ties: str
    reduce: str

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.batch, self.nodes, *shape, dtype=torch.float64)


@st.composite
def sizes(draw: st.DrawFn) -> Size:
    torch.manual_seed(draw(st.integers(0, 2**32 - 1)))
    loop = draw(st.booleans())
    nodes = draw(st.integers(1 if loop else 2, 7))
    return Size(
        draw(st.integers(1, 3)),
        nodes,
        draw(st.integers(2, 5)),
        draw(st.integers(1, nodes if loop else nodes - 1)),
        draw(st.sampled_from(METRICS)),
        loop,
        draw(st.sampled_from(["exact", "all"])),
        draw(st.sampled_from(["max", "mean", "sum"])),
    )


@dataclass
class Case:
    """An op's inputs for a size, and the op as a function of them and a mask."""

    inputs: Callable[[Size], list[Part]]
    call: Callable[..., Sequence[Part]]

    def of(self, size: Size) -> Callable[..., Sequence[Part]]:
        return lambda *tensors, mask=None: self.call(size, *tensors, mask=mask)

    def packed(self, size: Size, nodes: Tensor) -> Callable[..., Sequence[Part]] | None:
        """Return the op for graphs of some of the nodes, or None if there is no candidate."""
        candidates = len(nodes) if size.loop else len(nodes) - 1
        if candidates == 0:
            return None
        return self.of(replace(size, nodes=len(nodes), k=min(size.k, candidates)))


def nodes_of(size: Size) -> list[Part]:
    return [(size.normal(size.channels), "node")]


def knn(size: Size, x: Tensor, mask: Tensor | None = None) -> list[Part]:
    return [(ops.knn_graph(x, size.k, size.metric, loop=size.loop, mask=mask), "list")]


def max_relative(size: Size, x: Tensor, mask: Tensor | None = None) -> list[Part]:
    out, lists = ops.knn_max_relative(x, size.k, size.metric, loop=size.loop, mask=mask)
    return [(out, "node"), (lists, "list")]


def topk(size: Size, x: Tensor, values: Tensor, mask: Tensor | None = None) -> list[Part]:
    out, lists = ops.topk_aggregate(x, values, size.k, size.metric, ties=size.ties, mask=mask)
    return [(out, "node"), (lists, "list")]


def topk_inputs(size: Size) -> list[Part]:
    size.loop = True  # it has no option for this
    return [(size.normal(size.channels), "node"), (size.normal(3), "node")]


def aggregate(size: Size, x: Tensor, lists: Tensor, mask: Tensor | None = None) -> list[Part]:
    if mask is not None:  # the op has no mask: absent nodes are not listed
        graphs = torch.arange(len(x))[:, None, None]
        lists = lists.where(mask[graphs, lists.clamp_min(0)], -1)
    return [(ops.neighbor_aggregate(x, lists, size.reduce), "node")]


def list_inputs(size: Size) -> list[Part]:
    lists = torch.randint(-1, size.nodes, (size.batch, size.nodes, size.k))
    return [(size.normal(size.channels), "node"), (lists, "list")]


def attention(
    size: Size, values: Tensor, target: Tensor, source: Tensor, edges: Tensor, mask=None
) -> list[Part]:
    """The op has heads before nodes."""
    if mask is not None:
        edges = edges & mask[:, :, None] & mask[:, None]
    values, target, source = (tensor.transpose(1, 2) for tensor in (values, target, source))
    out, weights = ops.graph_attention(values, target, source, edges)
    return [(out.transpose(1, 2), "node"), (weights.permute(0, 2, 3, 1), "pair")]


def attention_inputs(size: Size) -> list[Part]:
    edges = torch.rand(size.batch, size.nodes, size.nodes) < 0.6
    scores = [(size.normal(2), "node") for _ in range(2)]
    return [(size.normal(2, size.channels), "node"), *scores, (edges, "pair")]


def gated(size: Size, edge: Tensor, values: Tensor, mask: Tensor | None = None) -> list[Part]:
    return [(ops.gated_edge_aggregate(edge, values, mask=mask), "node")]


def gated_inputs(size: Size) -> list[Part]:
    pairs = size.normal(size.nodes, size.channels)
    return [(pairs, "pair"), (size.normal(size.channels), "node")]


def pairwise(
    size: Size, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> list[Part]:
    out, moment = ops.pairwise_cross_attention(query, key, value, scale=0.7, mask=mask)
    return [(out, "pair"), (moment, "pair")]


def pool(
    size: Size, query: Tensor, key: Tensor, gram: Tensor, mask: Tensor | None = None
) -> list[Part]:
    """The op has no mask: it is applied here."""
    if mask is not None:
        pairs = mask[:, :, None] & mask[:, None]
        query, key, gram = (t.where(mask[:, :, None, None], 0) for t in (query, key, gram))
    mean, scatter = ops.pair_pool(query, key, gram)
    if mask is not None:
        mean, scatter = mean.where(pairs[..., None], 0), scatter.where(pairs, 0)
    return [(mean, "pair"), (scatter, "pair")]


def token_inputs(size: Size) -> list[Part]:
    return [(size.normal(3, size.channels), "node") for _ in range(3)]


def pool_inputs(size: Size) -> list[Part]:
    return [*token_inputs(size)[:2], (size.normal(3, 3), "node")]


def update(
    size: Size,
    edges: Tensor,
    projected: Tensor,
    target: Tensor,
    source: Tensor,
    weight: Tensor,
    bias: Tensor,
    *statistics: Tensor,
    mask: Tensor | None = None,
) -> list[Part]:
    inputs = (edges, projected, target, source, weight, bias)
    if not statistics:
        new, mean, var = ops.edge_update(*inputs, mask=mask)
        return [(new, "pair"), (mean, "shared"), (var, "shared")]
    mean, var = statistics
    return [(ops.edge_update(*inputs, (mean.detach(), var.detach().exp()), mask=mask)[0], "pair")]


def update_inputs(size: Size) -> list[Part]:
    pairs = [(size.normal(size.nodes, size.channels), "pair") for _ in range(2)]
    ends = [(size.normal(size.channels), "node") for _ in range(2)]
    shared = torch.randn(4, size.nodes, size.nodes, dtype=torch.float64)
    return [*pairs, *ends, *((each, "shared") for each in shared)]


def model_inputs(size: Size) -> list[Part]:
    couplings = torch.randn(size.nodes, size.nodes, dtype=torch.float64)
    return [(size.normal(), "node"), (couplings, "shared")]


def marginals(
    size: Size, logits: Tensor, couplings: Tensor, mask: Tensor | None = None
) -> list[Part]:
    found = ops.pairwise_marginals(logits, couplings, mask=mask, pairs=True)
    return list(zip(found, ("graph", "node", "node", "pair"), strict=True))


def mode(size: Size, logits: Tensor, couplings: Tensor, mask: Tensor | None = None) -> list[Part]:
    return [(ops.pairwise_mode(logits, couplings, mask=mask).double(), "node")]


def chain_inputs(size: Size) -> list[Part]:
    pairs = torch.randn(size.nodes, size.nodes, dtype=torch.float64)
    return [(size.normal(4), "node"), (pairs, "shared"), (size.normal(3).abs(), "node")]


def chain(
    size: Size, logits: Tensor, pairs: Tensor, stay: Tensor, mask: Tensor | None = None
) -> list[Part]:
    """The op has no mask of nodes: one that is absent is never active."""
    if mask is not None:
        logits, stay = logits.where(mask[..., None], -1e3), stay.where(mask[..., None], 0)
    _, odds = ops.chain_marginals(logits.mT, pairs, stay.mT)
    odds = odds.mT
    return [(odds if mask is None else odds.where(mask[..., None], 0), "node")]


def path(
    size: Size, logits: Tensor, pairs: Tensor, stay: Tensor, mask: Tensor | None = None
) -> list[Part]:
    if mask is not None:
        logits = logits.where(mask[..., None], -1e3)
        stay = stay.where(mask[..., None], 0)
    found = ops.chain_viterbi(logits.mT, pairs, stay.mT).mT
    return [(found if mask is None else found.where(mask[..., None], 0), "node")]


CASES = {
    "knn_graph": Case(nodes_of, knn),
    "knn_max_relative": Case(nodes_of, max_relative),
    "topk_aggregate": Case(topk_inputs, topk),
    "neighbor_aggregate": Case(list_inputs, aggregate),
    "graph_attention": Case(attention_inputs, attention),
    "gated_edge_aggregate": Case(gated_inputs, gated),
    "pairwise_cross_attention": Case(token_inputs, pairwise),
    "pair_pool": Case(pool_inputs, pool),
    "edge_update": Case(update_inputs, update),
    "pairwise_marginals": Case(model_inputs, marginals),
    "pairwise_mode": Case(model_inputs, mode),
    "chain_marginals": Case(chain_inputs, chain),
    "chain_viterbi": Case(chain_inputs, path),
}
every_op = pytest.mark.parametrize("name", CASES)


@every_op
@given(size=sizes())
def test_permuted_nodes_have_permuted_results(name: str, size: Size) -> None:
    inputs = CASES[name].inputs(size)
    forms.assert_equivariant(CASES[name].of(size), CASES[name].of(size), inputs)


@every_op
@given(size=sizes())
def test_graphs_of_a_batch_are_independent(name: str, size: Size) -> None:
    inputs = CASES[name].inputs(size)
    forms.assert_independent(CASES[name].of(size), inputs)


@every_op
@given(size=sizes())
def test_absent_nodes_have_no_effect(name: str, size: Size) -> None:
    inputs = CASES[name].inputs(size)
    mask = torch.rand(size.batch, size.nodes) < 0.6
    forms.assert_absent(CASES[name].of(size), partial(CASES[name].packed, size), inputs, mask)


@given(size=sizes())
def test_edges_normalized_by_their_batch_do_not_depend_on_absent_nodes(size: Size) -> None:
    """Graphs without the absent nodes have the same edges and statistics."""
    order = torch.randperm(size.nodes)
    kept = order[: int(torch.randint(1, size.nodes + 1, ()))]
    mask = torch.zeros(size.batch, size.nodes, dtype=torch.bool)
    mask[:, kept] = True
    exists = forms.existing(mask)
    inputs = update_inputs(size)[:-2]
    spoiled = [forms.spoil(part, exists[part[1]]) for part in inputs]
    outs = update(size, *spoiled, mask=mask)
    expected_parts = update(size, *(forms.pick(part, kept) for part in inputs))
    forms.assert_equal(forms.picked(outs, kept), expected_parts)


def ragged(size: Size) -> tuple[Tensor, Tensor]:
    counts = torch.randint(0, size.nodes + 1, (size.batch,))
    batch = torch.arange(size.batch).repeat_interleave(counts)
    return torch.randn(len(batch), size.channels, dtype=torch.float64), batch


@given(size=sizes())
def test_ragged_graphs_may_come_in_any_order(size: Size) -> None:
    """The results of a shuffled ragged batch are the shuffled results."""
    x, batch = ragged(size)
    names = torch.randperm(size.batch)[batch] if len(batch) else batch
    order = (names + torch.rand(len(batch))).argsort()
    place = order.argsort()
    expected, lists = ops.ragged_knn_max_relative(x, batch, size.k, size.metric, loop=size.loop)
    got, moved = ops.ragged_knn_max_relative(
        x[order], names[order], size.k, size.metric, loop=size.loop
    )
    assert torch.equal(got, expected[order])
    lists = lists[order]
    assert torch.equal(moved, place[lists.clamp_min(0)].where(lists >= 0, -1) if len(x) else lists)
    # The order of a sum is that of the nodes, and so is its rounding.
    torch.testing.assert_close(
        ops.ragged_neighbor_aggregate(x[order], moved, "mean"),
        ops.ragged_neighbor_aggregate(x, torch.where(lists < 0, -1, lists)[place], "mean")[order],
        rtol=0,
        atol=1e-14,
    )


@given(size=sizes())
def test_ragged_graphs_are_independent(size: Size) -> None:
    """The results of a graph are those of it alone, whatever the others hold, even NaN."""
    x, batch = ragged(size)
    graph = int(torch.randint(size.batch, ()))
    nodes = (batch == graph).nonzero()[:, 0]
    alone = x[nodes]
    x = x.masked_fill(
        ((batch != graph) & (torch.rand(size.batch) < 0.5)[batch])[:, None], torch.nan
    )
    options = {"k": size.k, "metric": size.metric, "loop": size.loop}
    out, lists = ops.ragged_knn_max_relative(x, batch, **options)
    expected, expected_lists = ops.ragged_knn_max_relative(
        alone, torch.zeros_like(nodes), **options
    )
    forms.assert_close(out[nodes], expected, 1e-9, 1e-9)
    first = nodes[0] if len(nodes) else 0
    assert torch.equal(lists[nodes], (expected_lists + first).where(expected_lists >= 0, -1))
    forms.assert_close(
        ops.ragged_neighbor_aggregate(x, lists, size.reduce)[nodes],
        ops.ragged_neighbor_aggregate(alone, expected_lists, size.reduce),
        1e-9,
        1e-9,
    )


def as_ragged(size: Size, x: Tensor) -> tuple[Tensor, Tensor]:
    return x.flatten(0, 1), torch.arange(size.batch).repeat_interleave(size.nodes)


def as_dense(size: Size, lists: Tensor) -> Tensor:
    graphs = torch.arange(size.batch)[:, None, None]
    return lists.unflatten(0, (size.batch, size.nodes)) - size.nodes * graphs


def ragged_knn(size: Size, x: Tensor) -> Tensor:
    options = {"k": size.k, "metric": size.metric, "loop": size.loop}
    return as_dense(size, ops.ragged_knn_graph(*as_ragged(size, x), **options))


def ragged_max_relative(size: Size, x: Tensor) -> Tensor:
    options = {"k": size.k, "metric": size.metric, "loop": size.loop}
    return as_dense(size, ops.ragged_knn_max_relative(*as_ragged(size, x), **options)[1])


CHOOSERS: dict[str, Callable[[Size, Tensor], Tensor]] = {
    "knn_graph": lambda size, x: knn(size, x)[0][0],
    "knn_max_relative": lambda size, x: max_relative(size, x)[1][0],
    "topk_aggregate": lambda size, x: topk(replace(size, ties="exact"), x, x)[1][0],
    "ragged_knn_graph": ragged_knn,
    "ragged_knn_max_relative": ragged_max_relative,
}
every_chooser = pytest.mark.parametrize("name", CHOOSERS)


def test_every_op_is_tested() -> None:
    ragged_ops = {name for name in ops.__all__ if name.startswith("ragged_")}
    assert {*CASES, *ragged_ops, "Backend", "use_backend"} == set(ops.__all__)
    assert set(CHOOSERS) < set(ops.__all__)


def integers(size: Size) -> Tensor:
    """Return features whose distances are exact, with ties."""
    return torch.randint(-4, 5, (size.batch, size.nodes, size.channels)).double()


@every_chooser
@given(size=sizes(), power=st.integers(-8, 8))
def test_neighbors_do_not_depend_on_the_scale(name: str, size: Size, power: int) -> None:
    x = integers(size)
    assert torch.equal(CHOOSERS[name](size, x * 2.0**power), CHOOSERS[name](size, x))


@every_chooser
@given(size=sizes(), step=st.integers(-1000, 1000))
def test_neighbors_do_not_depend_on_a_common_shift(name: str, size: Size, step: int) -> None:
    size.metric = "l1" if size.metric in ("l1", "dot") else "l2"
    x = integers(size)
    shift = step * torch.randint(-3, 4, (size.batch, 1, size.channels))
    assert torch.equal(CHOOSERS[name](size, x + shift), CHOOSERS[name](size, x))


@given(size=sizes(), step=st.integers(-1000, 1000), power=st.integers(-8, 8))
def test_max_relative_is_proportional_to_the_scale_and_independent_of_shifts(
    size: Size, step: int, power: int
) -> None:
    size.metric = "l1" if size.metric in ("l1", "dot") else "l2"
    x = integers(size)
    moved = (x + step * torch.randint(-3, 4, (size.batch, 1, size.channels))) * 2.0**power
    expected = max_relative(size, x)[0][0] * 2.0**power
    assert torch.equal(max_relative(size, moved)[0][0], expected)
    options = {"k": size.k, "metric": size.metric, "loop": size.loop}
    got, _ = ops.ragged_knn_max_relative(*as_ragged(size, moved), **options)
    assert torch.equal(got.view(expected.shape), expected)


@every_chooser
@given(size=sizes())
def test_cosine_does_not_depend_on_the_length_of_a_node(name: str, size: Size) -> None:
    size.metric = "cosine"
    x = integers(size)
    lengths = 2.0 ** torch.randint(-5, 6, (size.batch, size.nodes, 1))
    assert torch.equal(CHOOSERS[name](size, x * lengths), CHOOSERS[name](size, x))


@given(size=sizes())
def test_rotations_and_signs_change_no_neighbor(size: Size) -> None:
    """l1 does not depend on signs of channels, the other metrics not on rotations."""
    x = size.normal(size.channels)
    expected = knn(size, x)[0][0]
    if size.metric == "l1":
        turned = x * (2 * torch.randint(0, 2, (size.channels,)) - 1)
    else:
        turned = x @ torch.linalg.qr(torch.randn(size.channels, size.channels).double()).Q
    assert torch.equal(knn(size, turned)[0][0], expected)


@every_chooser
@given(size=sizes())
def test_more_neighbors_extend_the_list(name: str, size: Size) -> None:
    """The first K of K + 1 are the K, and all differ."""
    size.loop |= name == "topk_aggregate"  # it has no option for this
    x = integers(size)
    most = size.nodes if size.loop else size.nodes - 1
    size.k = min(size.k, most)
    few = CHOOSERS[name](size, x)
    more = CHOOSERS[name](replace(size, k=min(size.k + 1, most)), x)
    assert torch.equal(few, more[..., : size.k])
    every = CHOOSERS[name](replace(size, k=most), x)
    assert torch.equal(few, every[..., : size.k])
    assert (every.sort(2).values.diff(dim=2) > 0).all()


@given(size=sizes())
def test_a_maximum_over_more_neighbors_is_no_smaller(size: Size) -> None:
    x = integers(size)
    most = size.nodes if size.loop else size.nodes - 1
    outs = [max_relative(replace(size, k=k), x)[0][0] for k in (size.k, most)]
    assert (outs[1] >= outs[0]).all()


@given(size=sizes())
def test_with_loops_a_node_is_its_own_nearest_neighbor(size: Size) -> None:
    """This holds for every distance; then the maximum is nowhere below the node."""
    x = size.normal(size.channels)
    metric = size.metric if size.metric != "dot" else "l2"
    out, lists = ops.knn_max_relative(x, min(size.k, size.nodes), metric)
    assert torch.equal(lists[..., 0], torch.arange(size.nodes).expand(size.batch, -1))
    assert (out >= 0).all()
    if size.nodes > 1:
        alone = ops.knn_graph(x, size.nodes - 1, metric, loop=False)
        assert torch.equal(ops.knn_graph(x, size.nodes, metric)[..., 1:], alone)
