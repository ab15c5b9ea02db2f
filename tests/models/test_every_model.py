from __future__ import annotations

import pytest
import torch
from small_models import CLIP_MODELS, SMALL, evaluate_after_one_step, small_input, small_model
from torch import Tensor
from torch.utils import _pytree as pytree

from aurel.models.registry import list_models, model_info
from aurel.output import AUOutput

every_model = pytest.mark.parametrize("name", list_models())


def tensors(out: AUOutput) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(out) if isinstance(leaf, Tensor)]


def only(out: AUOutput, index: int) -> AUOutput:
    return pytree.tree_map_only(Tensor, lambda tensor: tensor[index : index + 1], out)


def assert_same(a: AUOutput, b: AUOutput, atol: float = 1e-4) -> None:
    assert a.aus == b.aus
    for x, y in zip(tensors(a), tensors(b), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=atol)


@pytest.fixture
def images(name: str) -> Tensor:
    return small_input(name)


def test_every_model_is_tested() -> None:
    assert set(SMALL) == set(list_models())


@every_model
@pytest.mark.parametrize("aus", ["DISFA", [1, 2, 4, 12, 15]])
def test_outputs(name: str, aus: object, images: Tensor) -> None:
    model = small_model(name, aus=aus)
    out = model(images, return_graph=True)
    count = len(model.aus)
    filled = [field for field in vars(out) if getattr(out, field) is not None]
    assert set(filled) == {*model_info(name).outputs, "aus"}
    assert out.aus == model.aus
    leading = images.shape[:2] if name in CLIP_MODELS else images.shape[:1]
    assert out.probs.shape == (*leading, count)
    assert (out.probs >= 0).all() and (out.probs <= 1).all()
    assert out.probs.std() > 0
    if out.logits is not None:
        torch.testing.assert_close(out.probs, out.logits.sigmoid())
    if out.edge_logits is not None:
        assert out.edge_logits.shape == (3, count, count, 4)
    if out.region_logits is not None:
        assert all(group.shape[:-1] == leading for group in out.region_logits)
    if out.landmarks is not None:
        assert out.landmarks.shape == (3, 49, 2)
    assert all(len(graph.adjacency()) == leading.numel() for graph in out.graphs)
    assert model(images).graphs is None


@every_model
def test_every_parameter_gets_a_finite_gradient(name: str, images: Tensor) -> None:
    model = small_model(name).train()
    out = model(images)
    loss = sum((t * torch.randn_like(t)).sum() for t in tensors(out))
    loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@every_model
def test_the_same_seed_gives_the_same_model(name: str, images: Tensor) -> None:
    torch.manual_seed(1)
    first = small_model(name)
    torch.manual_seed(1)
    second = small_model(name)
    assert_same(first.eval()(images), second.eval()(images), atol=0.0)
    torch.manual_seed(2)
    other = small_model(name).eval()
    assert not torch.allclose(first(images).probs, other(images).probs)


@every_model
def test_an_image_does_not_depend_on_its_neighbours_in_the_batch(name: str) -> None:
    model = small_model(name)
    evaluate_after_one_step(model)
    images = small_input(name, 4)
    with torch.no_grad():
        together = model(images)
        for index in range(4):
            alone = model(images[index : index + 1])
            assert_same(alone, only(together, index))


@every_model
def test_nan_in_one_image_stays_there(name: str) -> None:
    model = small_model(name)
    evaluate_after_one_step(model)
    images = small_input(name)
    spoilt = images.clone()
    spoilt[1, ..., 5:9, 5:9] = float("nan")
    with torch.no_grad():
        clean, out = model(images), model(spoilt)
    assert out.probs[[0, 2]].isfinite().all()
    torch.testing.assert_close(out.probs[[0, 2]], clean.probs[[0, 2]], rtol=1e-4, atol=1e-4)


@every_model
def test_state_dict_round_trip(name: str, images: Tensor) -> None:
    model, other = small_model(name), small_model(name)
    evaluate_after_one_step(model)
    other.load_state_dict(model.state_dict())
    assert_same(other.eval()(images), model(images), atol=0.0)


@every_model
def test_autocast(name: str, images: Tensor) -> None:
    model = small_model(name)
    evaluate_after_one_step(model)
    exact = model(images).probs
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(images)
    assert out.probs.dtype == torch.float32
    torch.testing.assert_close(out.probs, exact, rtol=0.0, atol=0.05)
    out.probs.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@every_model
def test_export(name: str) -> None:
    model = small_model(name)
    evaluate_after_one_step(model)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(model, (small_input(name),), dynamic_shapes=({0: batch},))
    images = small_input(name, 5)
    out = program.module()(images)
    assert isinstance(out, AUOutput)
    assert_same(out, model(images))


@every_model
def test_compile(name: str, images: Tensor) -> None:
    model = small_model(name).train()
    torch.manual_seed(3)
    expected = model(images)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_same(compiled(images), expected)
