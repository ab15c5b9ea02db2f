"""Types of layers and models in a script of a user."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aurel import layers

ROOT = Path(__file__).resolve().parents[1]

# Under --strict an ignore that hides no error is an error itself.
SCRIPT = """
from typing import assert_type

import aurel
import torch
from aurel.graph import RelationGraph
from aurel.layers import CrossRegionGAT, EdgeGraphConv, GatedEdgeGCN, Grapher, MultiDimensionalEdges
from aurel.layers import NodeTransformer, SelfAdjustingGCN, TopKGraphConv
from aurel.models import AUModel, VotingEnsemble, create_model, load_model
from aurel.models.sacl import SACLConfig
from aurel.output import AUOutput
from torch import Tensor

x = torch.zeros(2, 3, 8)

model = create_model("sacl", num_aus=12)
assert_type(model, AUModel)
assert_type(model(x), AUOutput)
assert_type(model(x, return_graph=True).graphs, tuple[RelationGraph, ...] | None)
assert_type(load_model("model.ckpt"), AUModel)
assert_type(model.config.backbone, str)
assert_type(model.context, int)
assert_type(VotingEnsemble([model])(x), AUOutput)
create_model(3)  # type: ignore[arg-type]
load_model(3)  # type: ignore[arg-type]

relation = TopKGraphConv(8, 3)
assert_type(relation(x), Tensor)
assert_type(relation(x, return_graph=True), tuple[Tensor, RelationGraph])
gcn = SelfAdjustingGCN(8, 8)
assert_type(gcn(x, return_graph=True), tuple[Tensor, tuple[RelationGraph, ...]])
nodes, edges = GatedEdgeGCN(8, 3)(x, x)
assert_type(edges, Tensor)

def with_flag(flag: bool) -> None:
    assert_type(relation(x, return_graph=flag), Tensor | tuple[Tensor, RelationGraph])
    assert_type(EdgeGraphConv(8, 8, 2)(x, return_graph=flag), Tensor | tuple[Tensor, RelationGraph])
    assert_type(Grapher(8)(x, return_graph=flag), Tensor | tuple[Tensor, RelationGraph])
    assert_type(
        CrossRegionGAT(8, [0, 1])(x, return_graph=flag), Tensor | tuple[Tensor, RelationGraph]
    )
    assert_type(
        MultiDimensionalEdges(8, 3)(x, x, return_graph=flag), Tensor | tuple[Tensor, RelationGraph]
    )
    assert_type(gcn(x, return_graph=flag), Tensor | tuple[Tensor, tuple[RelationGraph, ...]])
    assert_type(
        NodeTransformer(8, 8)(x, return_graph=flag),
        Tensor | tuple[Tensor, tuple[RelationGraph, ...]],
    )
    assert_type(
        GatedEdgeGCN(8, 3)(x, x, return_graph=flag),
        tuple[Tensor, Tensor] | tuple[tuple[Tensor, Tensor], RelationGraph],
    )

relation(3)  # type: ignore[call-overload]
relation(x, None, True)  # type: ignore[call-overload]
relation(x, weights=x)  # type: ignore[call-overload]

TopKGraphConv(8, 3, metric="chebyshev")  # type: ignore[arg-type]
SelfAdjustingGCN(8, 8, conv="mr")  # type: ignore[arg-type]
SelfAdjustingGCN(8, 8, graph="all")  # type: ignore[arg-type]
Grapher(8, conv="max_relative")  # type: ignore[arg-type]
EdgeGraphConv(8, 8, 2, metric="chebyshev")  # type: ignore[arg-type]
SACLConfig(fusion="sum")  # type: ignore[arg-type]

assert_type(aurel.layers.TopKGraphConv(8, 3)(x), Tensor)
assert_type(aurel.models.create_model("sacl"), AUModel)
assert_type(aurel.losses.multilabel_dice_loss(x, x), Tensor)
aurel.layer  # type: ignore[attr-defined]
"""


@pytest.mark.slow
def test_layers_and_models_have_types_in_a_strict_script(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("mypy")
    calls = [
        f"def call_{name}(x: aurel.layers.{name}) -> None:\n    reveal_type(x.__call__)"
        for name in layers.__all__
    ]
    script = tmp_path / "script.py"
    script.write_text("\n".join([SCRIPT, *calls]))
    cache = request.config.cache
    assert cache is not None
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", cache.mkdir("mypy"), script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    revealed = re.findall(r'Revealed type is "(.*)"', done.stdout)
    assert len(revealed) == len(calls)
    untyped = [name for name, found in zip(layers.__all__, revealed, strict=True) if "Any" in found]
    assert untyped == []


def test_subpackages_are_imported_when_they_are_first_used() -> None:
    code = (
        "import sys, aurel\n"
        "lazy = ('layers', 'losses', 'models')\n"
        "assert not any(f'aurel.{name}' in sys.modules for name in lazy)\n"
        "assert {*lazy} <= {*dir(aurel)}\n"
        "assert aurel.layers.TopKGraphConv and aurel.losses.multilabel_dice_loss\n"
        "assert 'timm' not in sys.modules\n"
        "assert aurel.models.create_model\n"
        "assert not hasattr(aurel, 'layer')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
