"""MDHR's released weights: names, shapes and numbers are those of the authors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.plain_mdhr import PlainMDHR
from test_author_checkpoint import Released
from torch import Tensor

from aurel.models.author_checkpoint import load_author_checkpoint
from aurel.models.author_keys.mdhr import LAYOUT
from aurel.models.registry import create_model

SWIN = "swin_base_patch4_window7_224"


def random_state(model: Any) -> dict[str, Tensor]:
    """Return random tensors by the authors' names, of a scale at which outputs differ."""
    state = {}
    for key, shape in LAYOUT.shapes(model).items():
        if key.endswith("tracked"):
            state[key] = torch.tensor(7)
        elif key.endswith("running_var"):
            state[key] = torch.rand(shape).double() + 0.5
        elif len(shape) > 1:
            fan_in = torch.Size(shape[1:]).numel()
            state[key] = torch.randn(shape).double() * (2 / fan_in) ** 0.5
        elif key.endswith(("bn.weight", "1.weight", "2.weight")):
            state[key] = torch.rand(shape).double() + 0.5
        else:
            state[key] = torch.randn(shape).double() * 0.3
    return state


# Backbone, then parameters for BP4D and DISFA.
SIZES = {"resnet50": (93_226_054, 91_090_984), SWIN: (108_148_926, 106_013_856)}


@pytest.mark.parametrize("backbone", SIZES)
def test_sizes_are_those_of_the_authors(backbone: str) -> None:
    with torch.device("meta"):
        models = [create_model("mdhr", aus=aus, backbone=backbone) for aus in ("BP4D", "DISFA")]
    assert [sum(p.numel() for p in model.parameters()) for model in models] == list(SIZES[backbone])
    assert [model.features.group_projections for model in models] == [True, False]
    assert [model.dynamics.strides for model in models] == [(8, 4, 2, 1)] * 2
    assert {model.projection.out_channels for model in models} == {512}


@pytest.mark.parametrize("aus", ["BP4D", "DISFA"])
def test_names_and_shapes_are_those_of_the_release(released: Released, aus: str) -> None:
    with torch.device("meta"):
        model = create_model("mdhr", aus=aus)
    expected = released(f"mdhr_resnet50_{aus.lower()}")
    assert {key: list(shape) for key, shape in LAYOUT.shapes(model).items()} == expected


def test_names_of_swin_are_the_original_ones() -> None:
    with torch.device("meta"):
        shapes = LAYOUT.shapes(create_model("mdhr", aus="DISFA", backbone=SWIN))
    assert shapes["Backbone.layers.0.downsample.reduction.weight"] == (256, 512)
    assert "Backbone.layers.3.downsample.reduction.weight" not in shapes
    assert shapes["Backbone.norm.weight"] == (1024,)
    assert shapes["global_linear.fc.weight"] == (512, 1024)
    assert shapes["MFD.conv1.weight"] == (1024, 128, 8, 8)


@pytest.mark.parametrize("aus", ["BP4D", "DISFA"])
def test_loaded_weights_give_the_authors_numbers(aus: str) -> None:
    options = {"backbone": "resnet18", "channels": 32, "num_adjacent": 1}
    model = create_model("mdhr", aus=aus, **options)
    state = random_state(model)
    content = {"epoch": 3, "state_dict": {f"module.{key}": v for key, v in state.items()}}
    assert load_author_checkpoint(model.double(), content) is model
    clips = torch.randn(2, 3, 3, 224, 224).double()
    with torch.no_grad():
        probs, logits = PlainMDHR(state, aus, "resnet18", k=1)(clips)
        out = model.eval()(clips)
    assert probs.std() > 0.01 and len({tuple(row) for row in logits[0].tolist()}) == 6
    torch.testing.assert_close(out.probs.flatten(0, 1), probs, rtol=1e-9, atol=1e-9)
    assert out.region_logits is not None
    for group, expected in zip(out.region_logits, logits, strict=True):
        torch.testing.assert_close(group.flatten(0, 1), expected, rtol=1e-9, atol=1e-9)


def test_every_tensor_of_the_file_is_used() -> None:
    model = create_model("mdhr", aus="BP4D", backbone="resnet18", channels=8)
    state = {
        key: torch.full(shape, index, dtype=torch.float)
        for index, (key, shape) in enumerate(LAYOUT.shapes(model).items())
    }
    load_author_checkpoint(model, state)
    found = {float(v) for value in model.state_dict().values() for v in value.flatten().unique()}
    # The norms of all AUs of a group have one counter of batches.
    learned = {i for i, key in enumerate(state) if not key.endswith("tracked")}
    assert learned <= found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": (4,)}, "options must be those of the complete MDHR, .*got MDHRConfig"),
        ({"backbone": "mobilenetv3_small_050"}, "backbone must be a ResNet or Swin, .*got mobile"),
        ({"aus": [1, 12]}, "groups must be those of BP4D or DISFA, .*got upper, lower"),
    ],
)
def test_what_cannot_be_loaded(options: dict[str, Any], message: str) -> None:
    model = create_model("mdhr", **{"aus": "DISFA", "backbone": "resnet18", **options})
    with pytest.raises(ValueError, match=message):
        load_author_checkpoint(model, {"x": torch.zeros(1)})


def test_the_other_data_set_is_refused() -> None:
    author = create_model("mdhr", aus="BP4D", backbone="resnet18", channels=8)
    model = create_model("mdhr", aus="DISFA", backbone="resnet18", channels=8)
    with pytest.raises(ValueError, match="(?s)missing: LRM.down_fc.*superfluous: LRM.up_linear"):
        load_author_checkpoint(model, random_state(author))
