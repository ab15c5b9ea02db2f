"""The benchmark of all models: without relations no node depends on another, and its tables."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aurel.layers import CrossRegionGAT, GatedEdgeGCN, SelfAdjustingGCN, TopKGraphConv
from aurel.models import list_models

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
WIDTH = 32
# The demo's net, and the AU paths of two tools, which are here for their released files.
OTHERS = ("au_windows", "openface3", "pyfeat_multitask")
PUBLISHED = [name for name in list_models() if name not in OTHERS]


@pytest.fixture(autouse=True)
def _import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def relation_layer(model: nn.Module) -> Any:
    from model_ablations import IsolatedGatedEdges

    kinds = (CrossRegionGAT, IsolatedGatedEdges, GatedEdgeGCN, SelfAdjustingGCN, TopKGraphConv)
    (layer,) = (module for module in model.modules() if isinstance(module, kinds))
    return layer.double().eval()


def influence(layer: Any, nodes: int = 12) -> Tensor:
    """Return the derivatives of each node's output (rows) by each node (columns), (N, N)."""
    channels = layer.in_channels if isinstance(layer, SelfAdjustingGCN) else WIDTH
    edges = torch.randn(1, nodes, nodes, channels, dtype=torch.float64)

    def out(x: Tensor) -> Tensor:
        x = x[None]
        if not isinstance(layer, CrossRegionGAT | SelfAdjustingGCN | TopKGraphConv):
            return layer(x, edges)[0].sum(-1)
        if isinstance(layer, CrossRegionGAT):
            return layer(x, torch.ones(1, nodes)).sum(-1)
        return layer(x).sum(-1)

    x = torch.randn(nodes, channels, dtype=torch.float64)
    return torch.autograd.functional.jacobian(out, x)[0].abs().sum(-1)


def test_every_model_is_in_the_benchmark() -> None:
    from model_ablations import PRESETS, REMOVED

    assert sorted(PRESETS) == sorted(REMOVED) == PUBLISHED


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "gtle_net"])
def test_without_relations_no_node_depends_on_another(name: str) -> None:
    from model_ablations import build

    torch.manual_seed(0)
    whole, without = build(name, True), build(name, False)
    shapes = [{key: p.shape for key, p in net.named_parameters()} for net in (whole, without)]
    assert shapes[0] == shapes[1]
    apart = ~torch.eye(12, dtype=torch.bool)
    assert (influence(relation_layer(whole))[apart] > 0).any()
    alone = influence(relation_layer(without))
    assert (alone[apart] == 0).all()
    assert (alone[~apart] > 0).any()


@pytest.mark.parametrize("residual", ["inside", "outside"])
def test_gated_edges_without_relations_are_the_layer_on_graphs_of_one_node(residual: Any) -> None:
    from model_ablations import IsolatedGatedEdges

    torch.manual_seed(0)
    batch, count, width = 5, 7, 8
    layer = GatedEdgeGCN(width, count, residual=residual)
    nodes = torch.randn(batch, count, width)
    edges = torch.randn(batch, count, count, width)
    mask = torch.eye(count, dtype=torch.bool).repeat(batch, 1)
    copies = [part.repeat_interleave(count, 0) for part in (nodes, edges)]
    out = layer(*copies, mask=mask)[0]
    out = out.view(batch, count, count, width).diagonal(dim1=1, dim2=2).transpose(1, 2)
    torch.testing.assert_close(
        IsolatedGatedEdges(layer)(nodes, edges)[0], out, atol=1e-5, rtol=1e-5
    )


def test_rows_and_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import models_on_faces

    monkeypatch.setattr(models_on_faces, "WARM_UP", 1)
    monkeypatch.setattr(
        models_on_faces, "ProcessPoolExecutor", lambda jobs, mp_context: ThreadPoolExecutor(jobs)
    )
    command = ["models_on_faces.py", "--quick", "--models", "mdhr", "--jobs", "1", "--out"]
    monkeypatch.setattr(sys, "argv", [*command, str(tmp_path / "table")])
    models_on_faces.main()
    page, rows = (tmp_path / "table.md").read_text(), (tmp_path / "table.jsonl").read_text()
    assert len({json.loads(row)["parameters"] for row in rows.splitlines()}) == 2
    assert (page.count("| mdhr |"), page.count("| backbone alone |")) == (3, 1)
    monkeypatch.setattr(models_on_faces, "train_and_score", None)
    models_on_faces.main()
    assert (tmp_path / "table.jsonl").read_text() == rows
