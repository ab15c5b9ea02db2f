from __future__ import annotations

import io

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from aurel.facs import AUSet
from aurel.graph import RelationGraph
from aurel.output import AUOutput

AUS = AUSet.of([1, 12])


class Predictor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> AUOutput:
        logits = self.linear(x)
        graph = RelationGraph(neighbors=logits.argsort(-1)[:, :, None])
        return AUOutput(logits.sigmoid(), logits, graphs=(graph,), aus=AUS)


def same(a: AUOutput, b: AUOutput) -> bool:
    leaves_a, spec_a = pytree.tree_flatten(a)
    leaves_b, spec_b = pytree.tree_flatten(b)
    close = [
        x is y if x is None or y is None else torch.allclose(x, y)
        for x, y in zip(leaves_a, leaves_b, strict=True)
    ]
    return spec_a == spec_b and all(close)


def test_tree_map_reaches_every_tensor_and_keeps_the_aus() -> None:
    out = Predictor()(torch.randn(4, 3))
    doubled = pytree.tree_map(lambda t: t if t is None else 2 * t, out)
    assert isinstance(doubled, AUOutput)
    assert torch.equal(doubled.probs, 2 * out.probs)
    assert torch.equal(doubled.graphs[0].neighbors, 2 * out.graphs[0].neighbors)
    assert doubled.aus is AUS and doubled.landmarks is None


def test_another_au_set_is_another_structure() -> None:
    probs = torch.rand(1, 2)
    one = pytree.tree_structure(AUOutput(probs, aus=AUS))
    assert one == pytree.tree_structure(AUOutput(probs + 1, aus=AUSet.of([1, 12])))
    assert one != pytree.tree_structure(AUOutput(probs, aus=AUSet.of([12, 1])))


def test_leaves_have_the_names_of_the_fields() -> None:
    leaves, _ = pytree.tree_flatten_with_path(AUOutput(torch.rand(1, 2), aus=AUS))
    names = [pytree.keystr(path) for path, _ in leaves]
    assert names[:3] == [".probs", ".logits", ".edge_logits"] and ".aus" not in names


def test_export_save_load() -> None:
    model, x = Predictor(), torch.randn(4, 3)
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    x = torch.randn(7, 3)
    out = torch.export.load(file).module()(x)
    assert out.aus == AUS
    assert same(out, model(x))


def test_compile() -> None:
    model, x = Predictor(), torch.randn(4, 3)
    out = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
    assert out.aus == AUS
    assert same(out, model(x))
