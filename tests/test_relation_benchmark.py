"""The ablation of the relation benchmark: the same parameters, and no node hears another."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

PATH = Path(__file__).resolve().parents[1] / "benchmarks" / "region_net.py"
LAYERS = ["attention", "top-k", "self-adjusting", "gated edges"]


@pytest.fixture(scope="module")
def region_net() -> ModuleType:
    spec = importlib.util.spec_from_file_location("region_net", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["region_net"] = module
    spec.loader.exec_module(module)
    return module


def influence(layer: torch.nn.Module, nodes: Tensor) -> Tensor:
    """Which nodes (columns) change a node's output (rows), (N, N)."""
    layer.eval()
    return (
        torch.autograd.functional.jacobian(lambda x: layer(x[None])[0].sum(-1), nodes[0])
        .abs()
        .sum(-1)
    )


@pytest.mark.parametrize("name", LAYERS)
def test_self_hears_nobody_and_has_the_same_parameters(region_net: ModuleType, name: str) -> None:
    torch.manual_seed(0)
    nodes = torch.randn(1, 6 if name != "self-adjusting" else 12, region_net.WIDTH)
    count = nodes.shape[1]
    full = region_net.RELATIONS[name](count, "full")
    alone = region_net.RELATIONS[name](count, "self")
    shapes = [{key: p.shape for key, p in layer.named_parameters()} for layer in (full, alone)]
    assert shapes[0] == shapes[1]
    apart = ~torch.eye(count, dtype=torch.bool)
    assert (influence(full, nodes)[apart] > 0).float().mean() > 0.2
    heard = influence(alone, nodes)
    assert (heard[apart] == 0).all()
    assert (heard[~apart] > 0).all()


@pytest.mark.parametrize("name", ["top-k", "gated edges"])
def test_self_is_the_layer_on_graphs_of_one_node(region_net: ModuleType, name: str) -> None:
    torch.manual_seed(0)
    batch, count, width = 5, 7, region_net.WIDTH
    full = region_net.RELATIONS[name](count, "full")
    alone = region_net.RELATIONS[name](count, "self")
    alone.load_state_dict(full.state_dict())
    nodes = torch.randn(batch, count, width)
    mask = torch.eye(count, dtype=torch.bool).repeat(batch, 1)
    copies = nodes.repeat_interleave(count, 0)
    if name == "top-k":
        out = full.second(full.first(copies, mask), mask)
    else:
        out = full.gcn(copies, full.edges.expand(len(copies), -1, -1, -1), mask=mask)[0]
    out = out.view(batch, count, count, width).diagonal(dim1=1, dim2=2).transpose(1, 2)
    torch.testing.assert_close(alone(nodes), out, atol=1e-5, rtol=1e-5)


def test_windows_lie_on_the_face(region_net: ModuleType) -> None:
    from aurel.data.synthetic import SyntheticFaces

    data = SyntheticFaces(subjects=range(8), per_subject=2, size=64)
    cells = region_net.au_cells(data.aus, data.landmarks.mean(0), 64)
    assert cells.shape == (12, 32)
    rows, columns = cells // 16, cells % 16
    upper = rows[:2].float().mean()
    lower = rows[-4:].float().mean()
    assert upper < 6 < 10 < lower
    # The two centres of an AU lie on both sides of the face.
    assert (columns[:4, :16].float().mean(1) < columns[:4, 16:].float().mean(1)).all()
    net = region_net.RegionNet(data.aus, data.landmarks.mean(0), 64)
    assert net(data.images[:3].float()).shape == (3, 12)
