"""Hooks, adapters, quantization, functional calls and other uses of modules work with models."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from helpers.small_models import evaluate_after_one_step, small_input, small_model
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrizations, prune
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from aurel.backbones.build import build_backbone
from aurel.models.registry import create_model, list_models

every_model = pytest.mark.parametrize("name", list_models())


def tensors(out: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]


def assert_same(out: Any, expected: Any, atol: float = 1e-5) -> None:
    for x, y in zip(tensors(out), tensors(expected), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=atol)


def trained(name: str) -> Any:
    torch.manual_seed(0)
    model = small_model(name)
    evaluate_after_one_step(model)
    return model


def from_meta(make: Any, state: dict[str, Tensor], assign: bool) -> Any:
    with torch.device("meta"):
        model = make().eval()
    if not assign:
        model.to_empty(device="cpu")
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.fill_(1)  # it may hold anything
    model.load_state_dict(state, assign=assign)
    return model


@every_model
@pytest.mark.parametrize("assign", [False, True])
def test_weights_are_all_that_a_model_on_the_meta_device_lacks(name: str, assign: bool) -> None:
    built = trained(name)
    model = from_meta(lambda: small_model(name), built.state_dict(), assign)
    images = small_input(name, 2)
    assert_same(model(images), built(images), 0)


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "embed_dim": 12, "depths": (1, 2)}),
        ("vit_base_patch16_sincos", {"img_size": 48, "embed_dim": 12, "depth": 1, "num_heads": 3}),
    ],
)
def test_constants_of_backbones_survive_the_meta_device(
    name: str, options: dict[str, Any], assign: bool
) -> None:
    if "depths" in options:
        options = {**options, "num_heads": (2, 2)}

    def make() -> Any:
        return build_backbone(name, **options)

    built = make().eval()
    backbone = from_meta(make, built.state_dict(), assign)
    images = torch.randn(2, 3, options["img_size"], options["img_size"])
    assert_same(backbone(images), built(images), 0)


@pytest.mark.parametrize("assign", [False, True])
def test_constants_of_an_encoder_survive_the_meta_device(assign: bool) -> None:
    def make() -> Any:
        return create_model("expression_encoder", backbone="test_vit")

    built = make().eval()
    assert not built.renormalize.unchanged
    images = torch.randn(2, 3, 160, 160)
    assert_same(from_meta(make, built.state_dict(), assign)(images), built(images), 0)


@every_model
def test_hooks_see_a_call_of_every_part_and_change_nothing(name: str) -> None:
    plain = trained(name)
    hooked, seen = copy.deepcopy(plain), set[str]()
    parts = {
        key: part
        for key, part in hooked.named_modules()
        if not isinstance(part, nn.ModuleList)
        and not key.endswith(".processes")
        and not (key + ".").startswith("backbone.")
    }
    for key, part in parts.items():
        part.register_forward_hook(lambda *_, key=key: seen.add(key))
    images = small_input(name, 2)
    assert_same(hooked(images), plain(images))
    assert seen == set(parts)


class Adapter(nn.Module):
    """A linear map plus a map of rank 1."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(0.1 * torch.randn(1, base.in_features))
        self.up = nn.Parameter(0.1 * torch.randn(base.out_features, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.down.mT @ self.up.mT


@every_model
def test_adapters_give_what_merged_weights_give(name: str) -> None:
    merged = trained(name).double()
    adapted = copy.deepcopy(merged)
    for key, part in list(merged.named_modules()):
        if isinstance(part, nn.Linear):
            adapter = Adapter(adapted.get_submodule(key)).double()
            adapted.set_submodule(key, adapter)
            part.weight.data.add_((adapter.up @ adapter.down).data)
    images = small_input(name, 2).double()
    out = adapted(images)
    assert_same(out, merged(images))
    sum(each.square().sum() for each in tensors(out) if each.requires_grad).backward()
    for key, part in adapted.named_modules():
        if isinstance(part, Adapter):
            assert part.up.grad is not None, key


@every_model
def test_weights_may_be_computed_from_other_parameters(name: str) -> None:
    for surgery in (parametrizations.weight_norm, lambda part: prune.identity(part, "weight")):
        plain = trained(name)
        model = copy.deepcopy(plain)
        for part in list(model.modules()):
            if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d):
                surgery(part)
        images = small_input(name, 2)
        assert_same(model(images), plain(images))
        for _ in range(2):  # the first backward does not prevent the second
            sum(each.square().sum() for each in tensors(model(images))).backward()


@every_model
def test_tensors_may_stand_for_parameters(name: str) -> None:
    model = trained(name)
    other = {key: 1.1 * x if x.is_floating_point() else x for key, x in model.state_dict().items()}
    images = small_input(name, 2)
    out = functional_call(model, other, images)
    model.load_state_dict(other)
    assert_same(out, model(images), 0)


@every_model
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_linear_maps_may_be_quantized(name: str) -> None:
    model = trained(name)
    images = small_input(name, 2)
    quantized = torch.ao.quantization.quantize_dynamic(model)
    with torch.no_grad():
        assert (quantized(images).probs - model(images).probs).abs().mean() < 0.05


@every_model
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_a_model_may_be_computed_again_for_its_gradients(name: str, use_reentrant: bool) -> None:
    model = small_model(name).train()
    images = small_input(name).requires_grad_()
    grads = []
    for again in (False, True):
        torch.manual_seed(0)
        model.zero_grad()

        def call(x: Tensor) -> Tensor:
            return model(x).probs

        probs = checkpoint(call, images, use_reentrant=use_reentrant) if again else call(images)
        probs.square().sum().backward()
        grads.append({key: parameter.grad for key, parameter in model.named_parameters()})
    for key, expected in grads[0].items():
        got = grads[1][key]
        assert (got is None) == (expected is None), key
        if got is not None:
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


@every_model
@pytest.mark.parametrize(
    "convert", [nn.SyncBatchNorm.convert_sync_batchnorm, convert_sync_batchnorm]
)
@pytest.mark.parametrize("training", [True, False])
def test_a_converted_model_in_one_process_is_the_model(
    name: str, convert: Any, training: bool
) -> None:
    plain = trained(name).train(training)
    model = convert(copy.deepcopy(plain))
    images = small_input(name)
    outs = []
    for each in (model, plain):
        torch.manual_seed(0)
        outs.append(each(images))
    assert_same(*outs)
    for key, buffer in plain.named_buffers():
        torch.testing.assert_close(model.get_buffer(key), buffer)


def test_a_model_without_its_activations_is_refused() -> None:
    model = create_model("me_graphau", aus=[1, 2, 4], backbone="efficientnet_b0").eval()
    images = torch.randn(1, 3, 64, 64)
    expected = model(images)
    assert_same(convert_sync_batchnorm(copy.deepcopy(model))(images), expected)
    lossy = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    with pytest.raises(ValueError, match=r"must keep their activations.*timm\.layers"):
        lossy(images)
