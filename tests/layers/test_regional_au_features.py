"""RegionalAUFeatures: equal to the authors' layers; each AU depends on its region alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from helpers.golden_layer import TOLERANCE, assert_buffers, assert_gradients, load

from aurel.facs import RegionGroup, region_plan
from aurel.layers.regional_au_features import RegionalAUFeatures
from aurel.models.author_keys.mdhr import regional_au_features

Golden = Callable[[str], dict[str, np.ndarray]]


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("aus", ["BP4D", "DISFA"])
def test_equals_the_authors_module(golden: Golden, aus: str, mode: str) -> None:
    arrays = golden(f"local_region_{aus.lower()}")
    plan = region_plan(aus)
    convert = partial(regional_au_features, plan=plan)
    layer = RegionalAUFeatures(24, plan, group_projections=aus == "BP4D")
    load(layer, arrays, convert, mode)
    x = torch.from_numpy(arrays["input.x"]).requires_grad_()
    nodes, logits = layer(x.unflatten(1, (7, 7)))
    outputs = [*logits, nodes]
    for index, out in enumerate(outputs):
        expected = torch.from_numpy(arrays[f"{mode}.out.{index}"])
        torch.testing.assert_close(out, expected, **TOLERANCE)
    cotangents = [torch.from_numpy(arrays[f"cotangent.{index}"]) for index in range(len(outputs))]
    assert_gradients(layer, arrays, convert, mode, {"x": x}, outputs, cotangents)
    if mode == "train":
        assert_buffers(layer, arrays, convert)


ROWS = {7: ((0, 3), (2, 5), (4, 7)), 14: ((0, 6), (4, 10), (8, 14)), 2: ((0, 1), (0, 2), (1, 2))}


@pytest.mark.parametrize("height", [1, *ROWS])
@pytest.mark.parametrize("group_projections", [False, True])
def test_an_au_depends_on_the_rows_of_its_region(height: int, group_projections: bool) -> None:
    plan = region_plan("BP4D")
    layer = RegionalAUFeatures(4, plan, group_projections=group_projections).eval()
    for name, bias in layer.named_parameters():
        if name.endswith("norm.bias"):
            torch.nn.init.constant_(bias, 20.0)  # no ReLU is off
    x = torch.rand(1, height, 3, 4, requires_grad=True)
    nodes, logits = layer(x)
    rows = dict(zip(("upper", "middle", "lower"), ROWS.get(height, ((0, 1),) * 3), strict=True))
    for group, region in enumerate(plan.regions):
        for out in (*nodes[0, list(plan.columns[group])], logits[group]):
            (gradient,) = torch.autograd.grad(out.sum(), x, retain_graph=True)
            rows_used = gradient[0].abs().sum((1, 2)).nonzero().flatten().tolist()
            assert rows_used == list(range(*rows[region]))


def test_nodes_are_in_the_order_of_the_au_set() -> None:
    numbers = [12, 1, 25, 6, 2]
    shuffled = RegionalAUFeatures(4, region_plan(numbers)).eval()
    # Groups list their AUs in column order, so the same layers serve the same AUs.
    ordered = RegionalAUFeatures(4, region_plan([1, 2, 6, 12, 25])).eval()
    ordered.load_state_dict(shuffled.state_dict())
    x = torch.randn(2, 7, 7, 4)
    nodes, logits = shuffled(x)
    others, other_logits = ordered(x)
    torch.testing.assert_close(nodes, others[:, [3, 0, 4, 2, 1]])
    torch.testing.assert_close(logits, other_logits)


def test_own_groups() -> None:
    table = [RegionGroup("eyes", "upper", (1, 2)), RegionGroup("mouth", "lower", (12, 4))]
    layer = RegionalAUFeatures(4, region_plan([1, 2, 4, 12], table))
    nodes, logits = layer(torch.randn(3, 7, 7, 4))
    assert nodes.shape == (3, 4, 4) and [group.shape[1] for group in logits] == [4, 4]
    (gradient,) = torch.autograd.grad(nodes[:, 2].sum(), layer.features[1].norm.bias)
    assert gradient[4:].any() and not gradient[:4].any()


def test_without_auxiliary_heads() -> None:
    torch.manual_seed(1)
    layer = RegionalAUFeatures(4, region_plan("DISFA"), auxiliary=False)
    x = torch.randn(2, 7, 7, 4)
    nodes, logits = layer(x)
    assert logits == () and not any("heads" in name for name, _ in layer.named_parameters())
    whole = RegionalAUFeatures(4, region_plan("DISFA"))
    whole.load_state_dict(layer.state_dict(), strict=False)
    torch.testing.assert_close(whole(x)[0], nodes)


def test_parameters_of_the_released_models() -> None:
    sizes = {"BP4D": (True, 4_240_426), "DISFA": (False, 8 * (512**2 + 3 * 512) + 20 * 513)}
    for aus, (projections, size) in sizes.items():
        with torch.device("meta"):
            layer = RegionalAUFeatures(512, region_plan(aus), group_projections=projections)
        assert sum(parameter.numel() for parameter in layer.parameters()) == size


def test_every_parameter_learns() -> None:
    layer = RegionalAUFeatures(8, region_plan("BP4D"), group_projections=True)
    nodes, logits = layer(torch.randn(3, 7, 7, 8))
    outputs = [nodes, *logits]
    torch.autograd.backward(outputs, [torch.randn_like(out) for out in outputs])
    for name, parameter in layer.named_parameters():
        # A bias before batch norm has no effect on it.
        if not name.endswith("linear.bias"):
            assert parameter.grad is not None and parameter.grad.abs().sum() > 1e-6, name


def test_nan_strides_and_empty_batch() -> None:
    layer = RegionalAUFeatures(4, region_plan("DISFA")).eval()
    x = torch.randn(2, 4, 7, 7).permute(0, 2, 3, 1)
    nodes, _ = layer(x)
    torch.testing.assert_close(nodes, layer(x.contiguous())[0])
    with_nan = x.clone()
    with_nan[0, 0] = torch.nan
    found, _ = layer(with_nan)
    assert found[0, :3].isnan().all()
    torch.testing.assert_close(found[0, 3:], nodes[0, 3:])
    torch.testing.assert_close(found[1], nodes[1])
    assert layer(x[:0])[0].shape == (0, 8, 4)


def test_repr_and_errors() -> None:
    layer = RegionalAUFeatures(4, region_plan([1, 12]))
    assert "4, {'upper': (0,), 'lower': (1,)}" in repr(layer)
    with pytest.raises(ValueError, match=r"x must have shape \(B, H, W, C=4\), got \(2, 49, 4\)"):
        layer(torch.randn(2, 49, 4))
