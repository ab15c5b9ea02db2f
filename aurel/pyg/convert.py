"""Conversion of dense batches of graphs to and from `Data`, `Batch` and `HeteroData`.

Beside `x`, `edge_index`, `edge_weight` and `edge_attr`, nodes carry `slot`: which of the N nodes of
the dense form, such as which action unit, each of them is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from aurel.graph import RelationGraph
from aurel.layers.masked_norm import zero_absent
from aurel.ops.arguments import check_input
from aurel.ops.ragged_knn_graph import check_batch, check_batch_values
from aurel.pyg.edges import by_target, check_edge_index, positions
from aurel.pyg.layout import Layout, lay_out

try:
    from torch_geometric.data import Batch, Data, HeteroData
except ImportError as error:
    raise ImportError("aurel.pyg needs torch-geometric: pip install 'aurel-au[pyg]'") from error

KEYS = ("x", "slot")  # attributes of nodes
EDGE = "to"  # the relation of all edges of a `HeteroData`


def to_batch(x: Tensor, mask: Tensor | None = None, graph: RelationGraph | None = None) -> Batch:
    """Return the nodes that exist as B graphs.

    Args:
        x: (B, N, C), B at least 1.
        mask: (B, N) bool, True where the node exists.
        graph: the graph that a layer returned for x; its edges become `edge_index` (from source
            to target), `edge_weight` and, if it has features, `edge_attr`.

    Returns:
        A `Batch` with `x` and `slot` as well.

    Raises:
        ValueError: an argument has the wrong shape or dtype.
    """
    check_input("x", x, "B N C")
    x = zero_absent(x, mask)
    batch, nodes, _ = x.shape
    if batch == 0:
        raise ValueError(f"x must hold at least one graph, got {tuple(x.shape)}")
    edges = [Data() for _ in x] if graph is None else _edges_of(graph, nodes)
    slots = torch.arange(nodes, device=x.device)
    exists = torch.ones_like(slots, dtype=torch.bool) if mask is None else mask
    graphs = []
    for data, features, present in zip(edges, x, exists.expand(batch, nodes), strict=True):
        data.x, data.slot = features, slots
        graphs.append(data.subgraph(present))
    return Batch.from_data_list(graphs)


def from_batch(
    data: Data, num_slots: int | None = None, num_graphs: int | None = None
) -> tuple[Tensor, Tensor, RelationGraph | None]:
    """Return the dense form of a `Data` or a `Batch`.

    Args:
        data: `x`; `slot`, by default the position of each node in its graph; and optionally
            `edge_index`, `edge_weight` (default 1) and `edge_attr`.
        num_slots: number N of nodes of the dense form; None for the fewest possible.
        num_graphs: number B of graphs; None for that of a `Batch`, or that in `batch`, where
            graphs without nodes at the end do not count.

    Returns:
        Nodes (B, N, C), zero where absent; the mask (B, N); and the graph, None without
        `edge_index`. It is dense, or holds neighbor lists where there are parallel edges or edges
        of weight 0, which dense weights cannot represent.

    Raises:
        ValueError: there are no nodes, or no slot for one; an edge has no target or one in another
            graph; or parallel edges have `edge_attr`.
    """
    if data.x is None:
        raise ValueError("data must have x, the features of nodes, got None")
    batch = data.batch
    if batch is None:
        batch = torch.zeros(len(data.x), dtype=torch.int64, device=data.x.device)
    check_batch(batch, data.x)
    check_batch_values(batch)
    slot = data.slot if "slot" in data else None
    if num_graphs is None and isinstance(data, Batch):
        num_graphs = data.num_graphs
    if slot is None and num_slots is not None:
        layout = lay_out(batch, num_graphs=num_graphs, least_slots=num_slots)
        if layout.mask.shape[1] > num_slots:
            raise ValueError(
                f"num_slots must be at least {layout.mask.shape[1]}, the nodes of the largest "
                f"graph, got {num_slots}"
            )
    else:
        layout = lay_out(batch, slot, num_graphs=num_graphs, num_slots=num_slots)
    if data.edge_index is None:
        return layout.pad(data.x), layout.mask, None
    return layout.pad(data.x), layout.mask, _dense_graph(data, layout)


def _dense_graph(data: Data, layout: Layout) -> RelationGraph:
    check_edge_index(data.edge_index, len(data.x))
    source, target = data.edge_index
    if bool((layout.batch[source] != layout.batch[target]).any()):
        raise ValueError("edge_index must connect nodes of the same graph, got an edge between two")
    indices = layout.batch[target], layout.slot[target], layout.slot[source]
    weight = data.edge_weight if "edge_weight" in data else data.x.new_ones(len(source))
    sizes = (*layout.mask.shape, layout.mask.shape[1])
    distinct = len((target * len(data.x) + source).unique())
    features = data.edge_attr
    if features is not None:
        if distinct < len(source):
            raise ValueError(
                f"edge_index must hold no parallel edges where there is edge_attr, got "
                f"{len(source)} edges between {distinct} pairs: data.coalesce() adds them up"
            )
        features = features.new_zeros(*sizes, *features.shape[1:]).index_put(indices, features)
    if distinct < len(source) or bool((weight == 0).any()):
        neighbors, weights = _lists(data.edge_index, weight, layout)
        return RelationGraph(neighbors=neighbors, weights=weights, edge_features=features)
    weights = weight.new_zeros(sizes).index_put(indices, weight)
    return RelationGraph(weights=weights, edge_features=features)


def _lists(edge_index: Tensor, weight: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """Return neighbor lists (B, N, K) of slots and the weight of each entry."""
    target = edge_index[1]
    order = target.argsort(stable=True)
    source, degree = by_target(edge_index, len(layout.batch))
    target, position = target[order], positions(degree, len(source))
    indices = layout.batch[target], layout.slot[target], position
    sizes = *layout.mask.shape, max(1, int(degree.max()))
    neighbors = source.new_full(sizes, -1).index_put(indices, layout.slot[source])
    return neighbors, weight.new_zeros(sizes).index_put(indices, weight[order])


def _edges_of(graph: RelationGraph, nodes: int) -> list[Data]:
    """Return the edges of each graph, by target, then by source."""
    if graph.neighbors is None:
        return graph.to_pyg().to_data_list()
    weights = graph.weights
    if weights is None:
        weights = torch.ones_like(graph.neighbors, dtype=torch.get_default_dtype())
    edge_features = graph.edge_features
    graphs = []
    for index, (lists, values) in enumerate(zip(graph.neighbors, weights, strict=True)):
        target, position = (lists >= 0).nonzero(as_tuple=True)
        order = (target * nodes + lists[target, position]).argsort(stable=True)
        target, position = target[order], position[order]
        source = lists[target, position]
        data = Data(
            edge_index=torch.stack((source, target)),
            edge_weight=values[target, position],
            num_nodes=nodes,
        )
        if edge_features is not None:
            data.edge_attr = edge_features[index][target, source]
        graphs.append(data)
    return graphs


def to_hetero(data: Data, types: Sequence[str]) -> HeteroData:
    """Return the graphs with a type for each group of nodes, such as a facial region.

    Args:
        data: `x`, `slot`, `batch` unless it is one graph, and optionally edges, as `to_batch`
            returns.
        types: the type of the node of each slot, N names.

    Returns:
        A `HeteroData` in which each type has `x`, `slot` and, if there is one, `batch`, and each
        pair of types the edges ``(source type, "to", target type)``, even if there are none;
        without `edge_index` there are no pairs. Other attributes are dropped. Those of single
        graphs can be collated by PyTorch Geometric's `DataLoader`.

    Raises:
        ValueError: `data` has no `x` or `slot`, or a slot has no type.
    """
    for key in KEYS:
        if key not in data:
            raise ValueError(
                f"data must have {' and '.join(KEYS)}, as to_batch returns, got {data}"
            )
    if len(data.slot) and int(data.slot.max()) >= len(types):
        raise ValueError(f"types must name all {int(data.slot.max()) + 1} slots, got {len(types)}")
    names = list(dict.fromkeys(types))
    numbers = torch.tensor([names.index(name) for name in types], device=data.slot.device)
    kind = numbers[data.slot]
    index = torch.empty_like(data.slot)
    hetero = HeteroData()
    for number, name in enumerate(names):
        of_kind = kind == number
        index[of_kind] = torch.arange(int(of_kind.sum()), device=index.device)
        for key in (*KEYS, "batch"):
            if key in data:
                hetero[name][key] = data[key][of_kind]
    if data.edge_index is None:
        return hetero
    source, target = data.edge_index
    for (a, source_type), (b, target_type) in product(enumerate(names), repeat=2):
        between = (kind[source] == a) & (kind[target] == b)
        store = hetero[source_type, EDGE, target_type]
        store.edge_index = torch.stack((index[source[between]], index[target[between]]))
        for key in ("edge_weight", "edge_attr"):
            if key in data:
                store[key] = data[key][between]
    return hetero


def from_hetero(hetero: HeteroData) -> Data:
    """Return the argument of `to_hetero`, sorted by graph and slot; `hetero` may be collated.

    Raises:
        ValueError: a type of node has no `x` or `slot`.
    """
    names = hetero.node_types
    for name in names:
        for key in KEYS:
            if key not in hetero[name]:
                raise ValueError(
                    f"{name!r} must have {' and '.join(KEYS)}, as to_hetero returns, got "
                    f"{hetero[name]}"
                )
    x, slot = (torch.cat([hetero[name][key] for name in names]) for key in KEYS)
    order = slot.argsort()
    data = Data()
    if all("batch" in hetero[name] for name in names):
        batch = torch.cat([hetero[name].batch for name in names])
        order = order[batch[order].argsort(stable=True)]
        data.batch = batch[order]
    data.x, data.slot = x[order], slot[order]
    if not hetero.edge_types:
        return data
    rank = order.argsort()
    counts = [len(hetero[name].slot) for name in names]
    first = dict(zip(names, (sum(counts[:i]) for i in range(len(counts))), strict=True))
    stores = [(a, b, hetero[a, relation, b]) for a, relation, b in hetero.edge_types]
    edges = torch.cat(
        [
            store.edge_index + torch.tensor([[first[a]], [first[b]]], device=rank.device)
            for a, b, store in stores
        ],
        dim=1,
    )
    data.edge_index = rank[edges]
    for key in ("edge_weight", "edge_attr"):
        if all(key in store for *_, store in stores):
            data[key] = torch.cat([store[key] for *_, store in stores])
    return data.sort(sort_by_row=False)
