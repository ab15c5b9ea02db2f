"""MACG: the numbers of the authors' head, its ablations, its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_models import evaluate_after_one_step, small_images, small_model
from test_author_checkpoint import Released, count_parameters, histogram, numbered
from torch import Tensor

from aurel.models.author_checkpoint import load_author_checkpoint
from aurel.models.author_keys import macg as author_keys
from aurel.models.author_keys.layers import au_specific_features, cosine_classifier, topk_graph_conv
from aurel.models.macg import MACGConfig, MACGHead
from aurel.models.registry import create_model

Golden = Callable[[str], dict[str, np.ndarray]]
Arrays = dict[str, Tensor]
UNUSED = 512 * 512 + 3 * 512
SIZES = {"disfa": 8, "emotionet": 12}
AUTHORS_K = {"disfa": 3, "emotionet": 4}


def under(arrays: Mapping[str, Tensor], prefix: str) -> Arrays:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def to_aurel(author: Arrays) -> Arrays:
    """Return tensors of the authors' head (parameters, gradients, buffers) by names of aurel."""
    modules = {
        "features": au_specific_features(under(author, "mafg.class_linears.")),
        "relation": topk_graph_conv(under(author, "gnn.")),
        "classifier": cosine_classifier(author),
    }
    state = {
        f"{name}.{key}": value for name, keys in modules.items() for key, value in keys.items()
    }
    return {**state, **author_keys.own_head(author)}


def assert_near(value: Tensor | None, expected: Tensor) -> None:
    assert value is not None
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_head_gives_the_authors_numbers(golden: Golden, mode: str) -> None:
    arrays = {key: torch.from_numpy(value) for key, value in golden("macg_head").items()}
    head = MACGHead(16, 5, MACGConfig(k=3, ties="all")).double()
    head.load_state_dict(to_aurel(under(arrays, "param.")))
    head.train(mode == "train")
    tokens = arrays["input.x"].requires_grad_()
    probs, _ = head(tokens.mT.unflatten(2, (7, 7)))
    assert_near(probs, arrays[f"{mode}.out.0"])
    probs.backward(arrays["cotangent.0"])
    assert_near(tokens.grad, arrays[f"{mode}.grad.input.x"])
    expected = to_aurel({**under(arrays, "param."), **under(arrays, f"{mode}.grad.param.")})
    for name, parameter in head.named_parameters():
        assert_near(parameter.grad, expected[name])
    if mode == "train":
        expected = to_aurel({**under(arrays, "param."), **under(arrays, "train.buffer_after.")})
        for name, buffer in head.named_buffers():
            assert_near(buffer, expected[name])


@pytest.mark.parametrize("name", SIZES)
def test_parameters_are_those_of_the_authors_that_they_use(released: Released, name: str) -> None:
    with torch.device("meta"):
        model = create_model("macg", num_aus=SIZES[name])
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == count_parameters(released(f"macg_resnet50_{name}")) - UNUSED


@pytest.mark.parametrize("name", SIZES)
def test_every_value_comes_from_the_file(released: Released, name: str) -> None:
    author = numbered(released(f"macg_resnet50_{name}"))
    model = create_model("macg", num_aus=SIZES[name])
    assert model.config.k == AUTHORS_K[name]
    for tensor in model.state_dict().values():
        tensor.fill_(len(author))
    load_author_checkpoint(model, {"state_dict": {f"module.{k}": v for k, v in author.items()}})
    used = {k: v for k, v in author.items() if not k.startswith("head.class_linear.")}
    assert len(author) - len(used) == 7
    bins = len(author) + 1
    assert torch.equal(histogram(model.state_dict(), bins), histogram(used, bins))
    assert model.config.ties == model.head.relation.ties == "all"


def test_a_loaded_model_gives_the_authors_outputs(golden: Golden) -> None:
    arrays = {key: torch.from_numpy(value) for key, value in golden("macg_head").items()}
    model = small_model("macg", backbone="resnet18", channels=16, k=3).double().eval()
    backbone = {f"backbone.{key}": value for key, value in model.backbone.net.state_dict().items()}
    names = {"linear": "fc", "norm": "bn"}
    projection = {
        f"global_linear.{names[key.split('.')[0]]}.{key.split('.')[1]}": value
        for key, value in model.projection.state_dict().items()
    }
    head = {f"head.{key}": value for key, value in under(arrays, "param.").items()}
    load_author_checkpoint(model, {**backbone, **projection, **head})
    probs, _ = model.head(arrays["input.x"].mT.unflatten(2, (7, 7)))
    assert_near(probs, arrays["eval.out.0"])
    del head["head.mafg.conv1_2.bias"]
    head["head.sc"] = head["head.sc"][:4]
    with pytest.raises(
        ValueError, match="(?s)missing: head.mafg.conv1_2.bias.*head.sc .*got .4, 16"
    ):
        load_author_checkpoint(model, {**backbone, **projection, **head})


@pytest.mark.parametrize(
    "options", [{"attention": "none"}, {"graph": False}, {"channel_topology": "per_au"}], ids=str
)
def test_the_authors_have_the_whole_model(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="options must be those of the authors, .*'mafg'.* got"):
        load_author_checkpoint(small_model("macg", **options), {"x": torch.zeros(1)})


# Rows of the paper's tables 4 and 5: options, then what the row has beyond features and classifier.
ROWS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "resnet": ({"attention": "none", "graph": False, "channel_topology": "none"}, set()),
    "evit": ({"attention": "efficient", "graph": False, "channel_topology": "none"}, {"attention"}),
    "mafg": ({"graph": False, "channel_topology": "none"}, {"attention"}),
    "baseline": ({"attention": "none", "channel_topology": "none"}, {"relation"}),
    "baseline+mafg": ({"channel_topology": "none"}, {"attention", "relation"}),
    "baseline+ccfg": ({"attention": "none"}, {"relation", "topology", "fusion"}),
    "all": ({}, {"attention", "relation", "topology", "fusion"}),
    "all, text": ({"channel_topology": "per_au"}, {"attention", "relation", "topology", "fusion"}),
    **{f"k = {k}": ({"k": k}, {"attention", "relation", "topology", "fusion"}) for k in (1, 5)},
}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_the_ablation_learns(row: str) -> None:
    options, parts = ROWS[row]
    model = small_model("macg", channels=32, **options).train()
    out = model(small_images(), return_graph=True)
    assert (out.graphs is None) == ("relation" not in parts)
    (out.probs * torch.randn_like(out.probs)).sum().backward()
    learned = {name.split(".")[1] for name, _ in model.named_parameters() if "head." in name}
    assert learned == {"features", "classifier", *parts}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or not name.startswith("head.") or "bias" in name, name


def test_each_option_changes_something() -> None:
    images = small_images()
    outputs = []
    for options in (
        {},
        {"k": 1},
        {"metric": "l1"},
        {"attention": "efficient"},
        {"attention": "none"},
        {"graph": False},
        {"channel_topology": "per_au"},
        {"channel_topology": "none"},
    ):
        torch.manual_seed(5)
        model = small_model("macg", channels=32, **{"k": 2, **options})
        outputs.append(model.train()(images).probs)
    for other in outputs[1:]:
        assert not torch.allclose(outputs[0], other)


@pytest.mark.parametrize(("aus", "k"), [("DISFA", 3), ("EmotioNet", 4), ([1, 2], 2)])
def test_default_k_is_the_papers(aus: Any, k: int) -> None:
    assert small_model("macg", aus=aus).config.k == k


def test_maps_need_not_be_square() -> None:
    model = small_model("macg")
    evaluate_after_one_step(model)
    images = torch.randn(2, 3, 64, 96)
    assert model(images).probs.shape == (2, 5)
    assert not torch.allclose(model(images).probs, model(images.transpose(2, 3)).probs)


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="attention must be one of mafg, efficient, none, got 'x'"):
        small_model("macg", attention="x")
    with pytest.raises(ValueError, match="channel_topology must be one of shared, per_au, none"):
        small_model("macg", channel_topology="all")
    with pytest.raises(ValueError, match="k must be in 1..5"):
        small_model("macg", k=6)
