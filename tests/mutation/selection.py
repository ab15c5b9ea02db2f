"""The tests that should detect a fault in a file."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOSSES = [
    f"tests/test_{name}.py"
    for name in (
        "losses",
        "logit_losses",
        "region_loss",
        "attention_losses",
        "triplet_losses",
        "ordinal_losses",
    )
]
PROPERTIES = "tests/properties/test_ops.py"
DISPATCH = "tests/kernels/test_triton_dispatch.py"
KERNELS = [
    DISPATCH,
    "tests/kernels/test_chain_kernels.py",
    "tests/kernels/test_edge_update_kernels.py",
    "tests/kernels/test_gated_edge_kernels.py",
]
# Which of their runs of kernels, in Triton's interpreter, concern an op; "" for none.
RUNS = {
    "chain_marginals": "chain",
    "chain_scan": "chain",
    "chain_viterbi": "",
    "edge_update": "edge_update",
    "gated_edge_aggregate": "gated",
    "graph_attention": "attention",
    "knn_graph": "knn_graph",
    "knn_max_relative": "max_relative",
    "neighbor_aggregate": "neighbor",
    "pair_pool": "pair",
    "pairwise_cross_attention": "pair",
    "pairwise_marginals": "pairwise_marginals",
    "pairwise_mode": "",
    "ragged_knn_graph": "",
    "topk_aggregate": "topk",
}
# Tests of every op, of which a file of an op takes those with its name.
EVERY_OP = [
    f"tests/ops/test_{subject}.py"
    for subject in (
        "operators",
        "derivatives",
        "memory_of_gradients",
        "arguments_of_ops",
        "dispatch",
    )
]
# Whose tests concern a file that has none of its own, or others' too.
KNN = ["knn_graph", "knn_max_relative", "topk_aggregate"]
RAGGED = ["ragged_knn_graph", "ragged_aggregate", "work_of_ragged_graphs"]
USERS = {
    "__init__": [],
    "chain_gradients": ["chain_marginals"],
    "chain_scan": ["chain_marginals"],
    "chain_states": ["chain_marginals", "chain_viterbi"],
    "distances": [*KNN, "exact_choice", "ties", "sources_bias_dilation"],
    "edge_update_blocks": ["edge_update"],
    "gather_reduce": ["neighbor_aggregate", *KNN, "sources_bias_dilation"],
    "image_blocks": ["edge_update", "gated_edge_aggregate"],
    "knn_graph": ["knn_graph", "sources_bias_dilation", "ties"],
    "knn_max_relative": ["knn_max_relative", "sources_bias_dilation"],
    "masks": ["edge_update", "gated_edge_aggregate", "pairwise_cross_attention"],
    "neighbor_aggregate": ["neighbor_aggregate", "ragged_aggregate", "arguments_of_ops"],
    "numba_support": ["backend"],
    "pairwise_halves": ["pairwise_marginals", "pairwise_mode"],
    "pairwise_kernel": ["pairwise_marginals"],
    "pairwise_states": ["pairwise_marginals", "pairwise_mode"],
    "pairwise_walk": ["pairwise_marginals"],
    "precision": ["pair_pool", "graph_attention", "pairwise_cross_attention"],
    "pyg_support": RAGGED,
    "ragged_knn_graph": [*RAGGED, "sources_bias_dilation"],
    "registration": ["operators", "dispatch", "memory_of_gradients", "derivatives", "backend"],
    "selection": [*KNN, "exact_choice", "ties", "sources_bias_dilation"],
    "triton_support": ["backend"],
}


def tests_of(path: str) -> list[tuple[str, list[str]]]:
    """Return selections of the tests that should detect a fault in a file, fastest first."""
    name = Path(path).stem
    if not path.startswith("aurel/ops/"):
        own = f"tests/test_{name.rstrip('s')}_losses.py"
        return [("", [test]) for test in ([own] if own in LOSSES else LOSSES)]
    users = [*USERS.get(name, [name]), "public_names"]
    stages = [("", [f"tests/ops/test_{user}.py" for user in users])]
    if name == "triton_support":
        stages += [("", [DISPATCH])]
    if name in RUNS:
        stages += [(name, [*EVERY_OP, PROPERTIES])]
    if RUNS.get(name):
        runs = f"not_served or falls_back or not_chosen or reaches or opcheck and ({RUNS[name]})"
        stages += [(runs, KERNELS)]
    return stages
