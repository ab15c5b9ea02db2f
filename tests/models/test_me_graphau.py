"""ME-GraphAU: the numbers of the authors' heads, sizes, the start of stage 2."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers.small_models import evaluate_after_one_step, small_images, small_model
from torch import Tensor, nn

from aurel.facs import AUSet
from aurel.models.author_keys.layers import (
    au_specific_features,
    cosine_classifier,
    gated_edge_gcn,
    multi_dimensional_edges,
    topk_graph_conv,
)
from aurel.models.me_graphau import EdgeHead, TopKHead, start_from_stage1
from aurel.models.registry import create_model

Golden = Callable[[str], dict[str, np.ndarray]]
Arrays = dict[str, Tensor]


def under(arrays: Arrays, prefix: str) -> Arrays:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def to_aurel(author: Arrays, stage: int) -> Arrays:
    """Return tensors of the authors' head (parameters, gradients, buffers) by names of aurel."""
    modules = {
        "features": au_specific_features(under(author, "class_linears.")),
        "classifier": cosine_classifier(author) if "sc" in author else {},
    }
    if stage == 1:
        modules["relation"] = topk_graph_conv(under(author, "gnn."))
    else:
        modules["relation"] = gated_edge_gcn(under(author, "gnn."))
        modules["edges"] = multi_dimensional_edges(under(author, "edge_extractor."))
        modules["edge_classifier"] = under(author, "edge_fc.")
    return {f"{name}.{key}": value for name, keys in modules.items() for key, value in keys.items()}


def golden_head(stage: int, arrays: Arrays) -> nn.Module:
    nodes, channels = arrays["param.sc"].shape
    head: nn.Module = EdgeHead(channels, range(nodes))
    if stage == 1:
        # The authors' head of this golden was made with their default of three neighbors.
        head = TopKHead(channels, range(nodes), 3, "dot", "all")
    head.double().load_state_dict(to_aurel(under(arrays, "param."), stage))
    return head


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("stage", [1, 2])
def test_heads_give_the_authors_numbers(golden: Golden, stage: int, mode: str) -> None:
    loaded = golden(f"me_graphau_head_stage{stage}")
    arrays = {key: torch.from_numpy(value) for key, value in loaded.items()}
    head = golden_head(stage, arrays).train(mode == "train")
    tokens = arrays["input.x"].requires_grad_()
    outputs = head(tokens)[:stage]
    loss = torch.zeros((), dtype=torch.float64)
    for index, out in enumerate(outputs):
        out = out.flatten(1, 2) if index == 1 else out
        assert_near(out, arrays[f"{mode}.out.{index}"])
        loss = loss + (out * arrays[f"cotangent.{index}"]).sum()
    loss.backward()
    assert_near(tokens.grad, arrays[f"{mode}.grad.input.x"])
    gradients = {**under(arrays, "param."), **under(arrays, f"{mode}.grad.param.")}
    expected = to_aurel(gradients, stage)
    for name, parameter in head.named_parameters():
        assert_near(parameter.grad, expected[name])
    if mode == "train":
        after = {**under(arrays, "param."), **under(arrays, "train.buffer_after.")}
        expected = to_aurel(after, stage)
        for name, buffer in head.named_buffers():
            assert_near(buffer, expected[name])


def assert_near(value: Tensor | None, expected: Tensor) -> None:
    assert value is not None
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)


# Backbone, parameters of stage 1 with 12 and 8 AUs, of stage 2 with 12 and 8: the released models.
SIZES = {
    "resnet18": (11_478_232, 11_410_640, 11_693_012, 11_624_932),
    "resnet50": (28_253_784, 27_197_008, 31_666_132, 30_608_868),
    "resnet101": (47_245_912, 46_189_136, 50_658_260, 49_600_996),
    "swin_tiny_patch4_window7_224": (29_899_026, 29_303_050, 31_819_534, 31_223_070),
    "swin_small_patch4_window7_224": (51_216_930, 50_620_954, 53_137_438, 52_540_974),
    "swin_base_patch4_window7_224": (90_964_688, 89_907_912, 94_377_036, 93_319_772),
}


@pytest.mark.parametrize("backbone", SIZES)
def test_sizes_are_those_of_the_released_models(backbone: str) -> None:
    sizes = []
    with torch.device("meta"):
        for name in ("me_graphau_stage1", "me_graphau"):
            for num_aus in (12, 8):
                model = create_model(name, num_aus=num_aus, backbone=backbone)
                sizes.append(sum(parameter.numel() for parameter in model.parameters()))
    assert tuple(sizes) == SIZES[backbone]


def test_any_backbone_with_a_map_is_valid() -> None:
    model = create_model("me_graphau_stage1", num_aus=3, backbone="mobilenetv3_small_050")
    out = model(small_images(2))
    assert out.probs.shape == (2, 3)
    assert model.projection.out_channels == model.projection.in_channels // 4
    narrow = create_model("me_graphau", num_aus=3, backbone="mobilenetv3_small_050", channels=10)
    assert narrow(small_images(2)).edge_logits.shape == (2, 3, 3, 4)


def test_stage2_inherits_from_stage1() -> None:
    stage1, stage2 = small_model("me_graphau_stage1"), small_model("me_graphau")
    evaluate_after_one_step(stage1)
    before = {key: value.clone() for key, value in stage2.state_dict().items()}
    start_from_stage1(stage2, stage1)
    source = stage1.state_dict()
    for key, value in stage2.state_dict().items():
        inherited = key in source and not key.startswith("head.relation.")
        assert torch.equal(value, source[key] if inherited else before[key]), key
    assert any(key.startswith("backbone.net.") for key in source)


def test_the_tag_of_the_weights_is_not_part_of_the_backbone() -> None:
    stage1 = small_model("me_graphau_stage1", backbone="resnet18.tv_in1k")
    start_from_stage1(small_model("me_graphau", backbone="resnet18"), stage1)


def test_stages_must_fit() -> None:
    stage2 = small_model("me_graphau")
    with pytest.raises(ValueError, match="AUs of stage 1 must be .*AU15.* as in stage 2, got"):
        start_from_stage1(stage2, small_model("me_graphau_stage1", aus="DISFA"))
    with pytest.raises(ValueError, match="backbone of stage 1 must be test_resnet .*got resnet34"):
        start_from_stage1(stage2, small_model("me_graphau_stage1", backbone="resnet34"))


def test_options_of_the_graph_reach_it() -> None:
    images = small_images()
    for k in (1, 2, 5):
        graph = small_model("me_graphau_stage1", k=k)(images, return_graph=True).graphs[0]
        assert graph.neighbors.shape == (3, 5, k)
    with pytest.raises(ValueError, match="metric"):
        small_model("me_graphau_stage1", metric="none")(images)
    with pytest.raises(ValueError, match="ties"):
        small_model("me_graphau_stage1", ties="some")(images)


def test_columns_are_those_of_the_au_set() -> None:
    model = small_model("me_graphau", aus=["AU12L", "AU12R", 4])
    assert model.aus == AUSet.of(["L12", "R12", 4])
    assert model(small_images()).aus.names == ("AU12L", "AU12R", "AU04")
