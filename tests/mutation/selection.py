"""Which tests ought to notice a fault in a file."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOSSES = ["tests/test_losses.py", "tests/test_logit_losses.py", "tests/test_region_loss.py"]
PROPERTIES = "tests/properties/test_ops.py"
DISPATCH = "tests/kernels/test_triton_dispatch.py"
KERNELS = [
    DISPATCH,
    "tests/kernels/test_edge_update_kernels.py",
    "tests/kernels/test_gated_edge_kernels.py",
]
# Which of their runs of kernels, in Triton's interpreter, concern an op.
RUNS = {
    "edge_update": "edge_update",
    "gated_edge_aggregate": "gated",
    "graph_attention": "attention",
    "knn_graph": "knn",
    "knn_max_relative": "max_relative",
    "neighbor_aggregate": "max or mean",
    "pair_pool": "pair",
    "pairwise_cross_attention": "pair",
    "topk_aggregate": "exact or all",
}
# Whose tests concern a file that has none of its own, or others' too.
KNN = ["knn_graph", "knn_max_relative", "topk_aggregate"]
RAGGED = ["ragged_knn_graph", "ragged_aggregate"]
USERS = {
    "__init__": [],
    "distances": KNN,
    "gather_reduce": ["neighbor_aggregate", *KNN],
    "image_blocks": ["edge_update", "gated_edge_aggregate"],
    "neighbor_aggregate": ["neighbor_aggregate", "ragged_aggregate"],
    "precision": ["pair_pool", "graph_attention", "pairwise_cross_attention"],
    "pyg_support": RAGGED,
    "selection": KNN,
    "triton_support": ["backend"],
}


def tests_of(path: str) -> list[tuple[str, list[str]]]:
    """Return selections of the tests that ought to notice a fault in a file, fastest first."""
    name = Path(path).stem
    if not path.startswith("aurel/ops/"):
        own = [f"tests/test_{name}.py", *LOSSES]
        return [("", [test]) for test in dict.fromkeys(own) if (ROOT / test).exists()]
    users = [*USERS.get(name, [name]), "public_names"]
    stages = [("", [f"tests/ops/test_{user}.py" for user in users])]
    if name == "triton_support":
        stages += [("", [DISPATCH])]
    if name in RUNS:
        runs = f"not_served or falls_back or not_chosen or reaches or opcheck and ({RUNS[name]})"
        stages += [(name, [PROPERTIES]), (runs, KERNELS)]
    return stages
