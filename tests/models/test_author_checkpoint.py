"""Weights that authors released: every tensor is used, and errors list what does not fit."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from aurel.models.author_checkpoint import load_author_checkpoint
from aurel.models.registry import create_model

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
Released = Callable[[str], dict[str, list[int]]]
SWIN = "swin_base_patch4_window7_224"


def author_shapes(
    released: Released, backbone: str, stage: int, num_aus: int
) -> dict[str, list[int]]:
    """Return keys and shapes of a released model; its head may be that of another backbone's list.

    The lists of Swin leave out the masks and indices that the files hold beside the weights.
    """
    bp4d, disfa = num_aus == 12, num_aus == 8
    if (stage, bp4d, backbone) in ((1, True, "resnet50"), (2, True, "resnet50")):
        return released(f"me_graphau_stage{stage}_resnet50_bp4d")
    if stage == 1 and disfa and backbone == "resnet50":
        return released("me_graphau_stage1_resnet50_disfa")
    swin = released("me_graphau_stage2_swin_base_disfa")
    if backbone == "resnet50":
        trunk = released("me_graphau_stage1_resnet50_disfa")
        head = swin
    else:
        trunk = swin
        for stage_index, (depth, windows) in enumerate([(2, 64), (2, 16), (18, 4), (2, 0)]):
            for block in range(depth):
                name = f"backbone.layers.{stage_index}.blocks.{block}"
                trunk[f"{name}.attn.relative_position_index"] = [49, 49]
                if windows and block % 2:
                    trunk[f"{name}.attn_mask"] = [windows, 49, 49]
        head = author_shapes(released, "resnet50", stage, num_aus)
    return {
        **{k: v for k, v in trunk.items() if not k.startswith("head.")},
        **{k: v for k, v in head.items() if k.startswith("head.")},
    }


def numbered(shapes: Mapping[str, Any]) -> dict[str, Tensor]:
    """Fill the i-th tensor with i, so that every value of a model shows which tensor it is from."""
    return {
        key: torch.full(shape, index, dtype=torch.long if key.endswith("tracked") else torch.float)
        for index, (key, shape) in enumerate(shapes.items())
    }


def count_parameters(shapes: Mapping[str, Any]) -> int:
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    return sum(math.prod(shape) for key, shape in shapes.items() if not key.endswith(buffers))


def histogram(tensors: Mapping[str, Tensor], bins: int) -> Tensor:
    total = torch.zeros(bins, dtype=torch.long)
    for key, tensor in tensors.items():
        if not key.endswith("num_batches_tracked"):
            total += torch.bincount(tensor.flatten().long(), minlength=bins)
    return total


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "stage", "num_aus"),
    [("resnet50", 1, 12), ("resnet50", 1, 8), ("resnet50", 2, 12), (SWIN, 1, 12), (SWIN, 2, 8)],
)
def test_every_value_comes_from_the_file(
    released: Released, backbone: str, stage: int, num_aus: int
) -> None:
    shapes = author_shapes(released, backbone, stage, num_aus)
    # One counter of batches is used for the N batch norms, which the model holds as one.
    author = {f"module.{key}": value for key, value in numbered(shapes).items()}
    name = "me_graphau_stage1" if stage == 1 else "me_graphau"
    model = create_model(name, num_aus=num_aus, backbone=backbone)
    for tensor in model.state_dict().values():
        tensor.fill_(len(author))
    content = {"epoch": 3, "state_dict": author, "optimizer": {"state": {}}}
    assert load_author_checkpoint(model, content) is model
    state = model.state_dict()
    expected = {
        key: value
        for key, value in author.items()
        if not key.endswith(("attn_mask", "relative_position_index"))
    }
    bins = len(author) + 1
    assert torch.equal(histogram(state, bins), histogram(expected, bins))
    counters = {int(v) for k, v in state.items() if k.endswith("tracked")}
    assert counters <= {int(v) for k, v in author.items() if k.endswith("tracked")}
    if stage == 1:
        assert model.config.ties == model.head.relation.ties == "all"
        assert model.config.k == (4 if num_aus == 12 else 3)


def plain(stage: int, k: int) -> torch.nn.Module:
    """Return a plain copy of the authors' model, with statistics that are not the initial ones."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from plain_me_graphau import PlainMEGraphAU
    finally:
        sys.path.remove(str(BENCHMARKS))
    model = PlainMEGraphAU("resnet18", 5, stage, k).train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, 64, 64))
    return model.eval()


@pytest.mark.parametrize("stage", [1, 2])
def test_a_loaded_model_gives_the_authors_outputs(stage: int, tmp_path: Path) -> None:
    author = plain(stage, k=3)
    path = tmp_path / "fold1.pth"
    torch.save({"state_dict": torch.nn.DataParallel(author).state_dict(), "epoch": 1}, path)
    options = {"k": 3} if stage == 1 else {}
    name = "me_graphau_stage1" if stage == 1 else "me_graphau"
    model = create_model(name, aus=[1, 2, 4, 12, 15], backbone="resnet18", **options).eval()
    load_author_checkpoint(model, str(path))
    images = torch.randn(3, 3, 64, 64)
    probs, edge_logits = author(images)
    out = model(images)
    torch.testing.assert_close(out.probs, probs, rtol=1e-4, atol=1e-5)
    if edge_logits is not None:
        torch.testing.assert_close(out.edge_logits.flatten(1, 2), edge_logits, rtol=1e-3, atol=1e-4)


def test_swin_merges_patches_in_the_same_order_as_the_original() -> None:
    from timm.models.swin_transformer import PatchMerging

    merge = PatchMerging(3)
    x = torch.randn(2, 4, 6, 3)
    corners = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
    original = merge.reduction(merge.norm(torch.cat(corners, dim=-1)))
    torch.testing.assert_close(merge(x), original)


def test_one_message_lists_all_that_does_not_fit() -> None:
    author = plain(1, k=3).state_dict()
    del author["head.class_linears.3.fc.weight"], author["backbone.layer1.0.conv1.weight"]
    author["head.gnn.W.weight"] = torch.zeros(1)
    author["head.sc"] = torch.zeros(12, 128)
    model = create_model("me_graphau_stage1", aus=[1, 2, 4, 12, 15], backbone="resnet18")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="weights must fit this me_graphau_stage1 .*got") as error:
        load_author_checkpoint(model, author)
    assert str(error.value).split("\n")[1:] == [
        "  missing: backbone.layer1.0.conv1.weight (64, 64, 3, 3)",
        "  missing: head.class_linears.3.fc.weight (128, 128)",
        "  superfluous: head.gnn.W.weight",
        "  shape: head.sc must be (5, 128), got (12, 128)",
    ]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.config.ties == "exact"


def test_the_other_stage_is_refused() -> None:
    model = create_model("me_graphau", aus=[1, 2, 4, 12, 15], backbone="resnet18")
    with pytest.raises(ValueError, match="(?s)missing: head.edge_fc.weight.*superfluous: head.gnn"):
        load_author_checkpoint(model, plain(1, k=3).state_dict())


@pytest.mark.parametrize(
    ("name", "options", "content", "message"),
    [
        ("sacl", {}, {}, "model must be one with released weights, got sacl"),
        ("me_graphau", {"backbone": "resnet18"}, {}, "must hold a state dict, .*got an empty dict"),
        ("me_graphau", {"backbone": "resnet18"}, {"state_dict": [1]}, "state dict, .*got list"),
        ("me_graphau", {"backbone": "resnet18"}, {"epoch": 1}, "tensors only, got others: epoch"),
        (
            "me_graphau",
            {"backbone": "mobilenetv3_small_050"},
            {"x": torch.zeros(1)},
            "backbone must be a ResNet or Swin, .*got mobilenetv3_small_050",
        ),
    ],
)
def test_what_cannot_be_loaded(
    name: str, options: dict[str, Any], content: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_author_checkpoint(create_model(name, **options), content)


@pytest.mark.parametrize("from_file", [True, False])
def test_weights_of_a_backbone_alone(from_file: bool, tmp_path: Path) -> None:
    state = {
        k: torch.randn_like(v.float())
        for k, v in timm.create_model("rest_tiny").state_dict().items()
    }
    content: Any = {"model": {f"module.{key}": value for key, value in state.items()}, "epoch": 1}
    path = tmp_path / "rest.pth"
    torch.save(content, path)
    backbone = create_model("macg", backbone="rest_tiny").backbone
    assert load_author_checkpoint(backbone, path if from_file else content) is backbone
    loaded = backbone.net.state_dict()
    assert all(torch.equal(value, state[key].to(value.dtype)) for key, value in loaded.items())
    assert len(loaded) == len(state) - 2  # without the classifier

    missing = content["model"].pop("module.stem.conv1.weight")
    content["model"]["surplus"] = missing
    with pytest.raises(ValueError, match=r'(?s)must fit this rest_tiny.*"stem.conv1.*"surplus"'):
        load_author_checkpoint(backbone, content)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fold1.pth"
    torch.save({"state_dict": {}, "args": Path("here")}, path)
    model = create_model("me_graphau", num_aus=2, backbone="resnet18")
    with pytest.raises(ValueError, match="(?s)weights_only=True.*pathlib"):
        load_author_checkpoint(model, path)
