"""Properties of all models: shapes, gradients, seeds, batches, NaN, copies, export, compilation."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from helpers.small_models import REPEATED, SMALL, evaluate_after_one_step, small_input, small_model
from torch import Tensor, nn
from torch._inductor import config as inductor
from torch.utils import _pytree as pytree

from aurel.facs import AUSet, au_center_rules
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


def test_small_options_are_of_models() -> None:
    assert set(SMALL) <= set(list_models())


@every_model
@pytest.mark.parametrize("aus", ["DISFA", [1, 2, 4, 12, 15], [25, 1, 12], [6]])
def test_outputs(name: str, aus: object, images: Tensor) -> None:
    model = small_model(name, aus=aus, **({"k": 2} if name == "sacl" else {}))
    out = model(images, return_graph=True)
    count = len(model.aus)
    filled = [field for field in vars(out) if getattr(out, field) is not None]
    assert set(filled) == {*model_info(name).outputs, "aus"}
    assert out.aus == model.aus
    leading = images.shape[:2] if model_info(name).takes_clips else images.shape[:1]
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
    assert all(len(graph.adjacency()) == leading.numel() for graph in out.graphs or ())
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
def test_an_image_does_not_depend_on_others_in_the_batch(name: str) -> None:
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
    with_nan = images.clone()
    with_nan[1, ..., 5:9, 5:9] = float("nan")
    with torch.no_grad():
        clean, out = model(images), model(with_nan)
    assert out.probs[[0, 2]].isfinite().all()
    torch.testing.assert_close(out.probs[[0, 2]], clean.probs[[0, 2]], rtol=1e-4, atol=1e-4)


@every_model
def test_state_dict_round_trip(name: str, images: Tensor) -> None:
    model, other = small_model(name), small_model(name)
    evaluate_after_one_step(model)
    other.load_state_dict(model.state_dict())
    assert_same(other.eval()(images), model(images), atol=0.0)


@every_model
def test_copies_and_pickles(name: str, images: Tensor) -> None:
    model = small_model(name)
    evaluate_after_one_step(model)
    expected = model(images)
    assert_same(copy.deepcopy(model)(images), expected, atol=0.0)
    assert_same(pickle.loads(pickle.dumps(model))(images), expected, atol=0.0)


def permute_blocks(tensor: Tensor, order: list[int]) -> Tensor:
    """Permute the blocks of each of the first two dimensions that has len(order) equal blocks.

    len(order) is a prime that divides no size of another kind.
    """
    for dim in range(min(2, tensor.ndim)):
        if tensor.shape[dim] % len(order) == 0:
            blocks = tensor.unflatten(dim, (len(order), -1))
            tensor = blocks.index_select(dim, torch.tensor(order)).flatten(dim, dim + 1)
    return tensor


def sacl_weights(state: dict[str, Tensor], old: AUSet, new: AUSet, order: list[int]) -> None:
    """Permute the weights of SACL's classifier by AU and by region of the face.

    Its inputs are the tokens of the map, then a token for each region, in the order of the AUs.
    """
    rules = au_center_rules(old), au_center_rules(new)
    moved = {
        after: before
        for column, pair in zip(order, rules[1].au_nodes, strict=True)
        for before, after in zip(rules[0].au_nodes[column], pair, strict=True)
    }
    weight = state["classifier.linear.weight"][order].unflatten(1, (-1, SMALL["sacl"]["token_dim"]))
    first = weight.shape[1] - len(moved)
    tokens = [*range(first), *(first + moved[node] for node in range(len(moved)))]
    state["classifier.linear.weight"] = weight[:, tokens].flatten(1)
    state["classifier.linear.bias"] = state["classifier.linear.bias"][order]


@every_model
def test_permuted_aus_give_permuted_probabilities(name: str, images: Tensor) -> None:
    """Compare with a model of the same AUs in another order, with permuted weights.

    AUs that share a region of MDHR keep their order: its region heads classify combinations.
    """
    model = small_model(name)
    evaluate_after_one_step(model)
    order = [3, 0, 1, 4, 2]
    other = small_model(name, aus=[model.aus.names[column] for column in order]).eval()
    main = [column for column in range(5) if not model.aus.sides[column]]
    nodes = [main.index(column) for column in order if column in main]
    state = dict(model.state_dict())
    if name == "sacl":
        sacl_weights(state, model.aus, other.aus, order)
    else:
        for key, tensor in state.items():
            if key.startswith("backbone."):
                continue
            by_node = tensor if len(nodes) == 5 else permute_blocks(tensor, nodes)
            state[key] = permute_blocks(by_node, order)
    other.load_state_dict(state)
    out, expected = other(images), model(images)
    torch.testing.assert_close(out.probs, expected.probs[..., order], rtol=1e-4, atol=1e-4)
    if out.edge_logits is not None:
        permuted = expected.edge_logits[:, order][:, :, order]
        torch.testing.assert_close(out.edge_logits, permuted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(out.probs, expected.probs, atol=1e-4)


@every_model
def test_images_of_another_size(name: str) -> None:
    model = small_model(name).eval()
    images = small_input(name)[..., :32].repeat(1, 1, *(1,) * model_info(name).takes_clips, 1, 3)
    if hasattr(model.config, "image_size"):
        with pytest.raises(ValueError, match="64"):
            model(images)
    else:
        assert model(images).probs.shape == model(small_input(name)).probs.shape


def leaves(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if not list(module.children())]


@pytest.mark.parametrize("name", [name for name in list_models() if name != "au_windows"])
def test_a_recomputed_backbone_changes_nothing_else(name: str, images: Tensor) -> None:
    model = small_model(name).train()
    other = copy.deepcopy(model)
    other.backbone.set_grad_checkpointing()
    off = copy.deepcopy(other)
    off.backbone.set_grad_checkpointing(False)
    calls = []
    for each in (model, other, off):
        calls.append(0)

        def count(*_: object) -> None:
            calls[-1] += 1

        handles = [leaf.register_forward_hook(count) for leaf in leaves(each.backbone)]
        torch.manual_seed(3)
        out = each(images)
        sum((t * torch.randn_like(t)).sum() for t in tensors(out)).backward()
        for handle in handles:
            handle.remove()
    assert calls[1] > calls[0] == calls[2]
    for each in (other, off):
        for (key, expected), got in zip(model.named_parameters(), each.parameters(), strict=True):
            torch.testing.assert_close(got.grad, expected.grad, msg=key)
        for (key, expected), got in zip(model.named_buffers(), each.buffers(), strict=True):
            torch.testing.assert_close(got, expected, rtol=0.0, atol=0.0, msg=key)


@every_model
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(name: str, dtype: torch.dtype, images: Tensor) -> None:
    model = small_model(name)
    evaluate_after_one_step(model)
    exact = model(images).probs
    with torch.autocast("cpu", dtype=dtype):
        out = model(images)
    assert out.probs.dtype == torch.float32
    torch.testing.assert_close(out.probs, exact, rtol=0.0, atol=0.05)
    out.probs.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


# Each model but the repeated ones is exported and compared in `test_export`, as an ONNX file.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["me_graphau", "mdhr", "open_graphau_stage1"])
def test_export(name: str) -> None:
    model = small_model(name)
    evaluate_after_one_step(model)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(model, (small_input(name),), dynamic_shapes=({0: batch},))
    images = small_input(name, 5)
    out = program.module()(images)
    assert isinstance(out, AUOutput)
    assert_same(out, model(images))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*list_models()} - REPEATED))
def test_compile(name: str, images: Tensor) -> None:
    model = small_model(name).train()
    other = copy.deepcopy(model)
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    results = []
    for each in (model, compiled):
        torch.manual_seed(3)
        out = each(images)
        sum((t * torch.randn_like(t)).sum() for t in tensors(out)).backward()
        results.append(out)
    assert_same(*results)
    for (key, expected), got in zip(model.named_parameters(), other.parameters(), strict=True):
        if expected.grad.norm() > 1e-2:
            assert (got.grad - expected.grad).norm() < 1e-2 * expected.grad.norm(), key


@pytest.mark.slow
def test_a_head_that_inductor_compiled_gives_the_same_numbers() -> None:
    # The instructions that the processor lists are not tried out by compiling a program for each.
    options = {"compile_threads": 1, "cpp.vec_isa_ok": True}
    head = small_model("me_graphau").head.eval()
    tokens = torch.rand(3, 4, head.classifier.channels)
    with torch.no_grad(), inductor.patch(options):
        expected = head(tokens)
        out = torch.compile(head, fullgraph=True)(tokens)
    for value, reference in zip(out[:2], expected[:2], strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-4, atol=1e-5)
