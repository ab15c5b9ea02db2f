"""The registry of models, and the creation of models by name."""

from __future__ import annotations

import inspect

import pytest
from torch import nn

from aurel.facs import AUSet
from aurel.models.base import AUModel, ModelConfig
from aurel.models.registry import (
    config_dict,
    create_model,
    info_of,
    list_models,
    make_config,
    model_info,
    register_model,
)


def test_list_models() -> None:
    assert {"me_graphau", "me_graphau_stage1", "sacl"} <= set(list_models())
    assert list_models("me_*") == ["me_graphau", "me_graphau_stage1"]
    assert list_models("nothing*") == []


def test_info_has_summary_outputs_and_paper() -> None:
    for name in list_models():
        info = model_info(name)
        assert info.summary and "probs" in info.outputs
        assert "arXiv" in info.paper or "github.com" in info.paper


def test_unknown_model_lists_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"model, got 'me_grafau'; nearest: .*me_graphau"):
        create_model("me_grafau")
    with pytest.raises(ValueError, match=r"model, got 'xyz'; nearest: .*sacl"):
        create_model("xyz")


def test_unknown_option_lists_the_known_ones() -> None:
    with pytest.raises(TypeError, match=r"among .*k, metric, ties, got 'neighbors'"):
        create_model("me_graphau_stage1", neighbors=4)


def test_a_backbone_is_given_by_its_name() -> None:
    with pytest.raises(TypeError, match="backbone must be a name.*got Module"):
        create_model("me_graphau", backbone=nn.Module())  # type: ignore[arg-type]


def test_models_say_what_they_take() -> None:
    assert [name for name in list_models() if model_info(name).takes_clips] == ["mdhr"]
    assert {model_info(name).inputs for name in list_models()} == {"images", "clips"}
    assert model_info("expression_encoder").inputs == "triplets"


@pytest.mark.parametrize("name", [*list_models(), "expression_encoder"])
def test_forward_takes_tensors_by_position_and_return_graph_by_keyword(name: str) -> None:
    info = model_info(name)
    _, *parameters = inspect.signature(info.model.forward).parameters.values()
    tensors = [p for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    options = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    assert parameters == tensors + options
    assert tensors[0].name == ("clips" if info.takes_clips else "images")
    assert all(p.annotation == "Tensor | None" and p.default is None for p in tensors[1:])
    assert [(p.name, p.default, p.annotation) for p in options] == (
        [("return_graph", False, "bool")] if info.predicts_aus else []
    )


def test_models_name_what_they_start_from() -> None:
    stages = {name: [*model_info(name).starts_from] for name in list_models()}
    assert {name: sources for name, sources in stages.items() if sources} == {
        "gtle_net": ["expression_encoder"],
        "me_graphau": ["me_graphau_stage1"],
        "open_graphau": ["open_graphau_stage1"],
    }
    for sources in stages.values():
        assert all(model_info(source).summary for source in sources)


def test_models_say_whether_weights_were_released() -> None:
    assert model_info("me_graphau").weights_released
    for name in ("macg", "mdhr", "sacl"):
        assert not model_info(name).weights_released
    assert model_info("mdhr").author_layout is not None


def test_number_and_set_of_aus_must_agree() -> None:
    with pytest.raises(ValueError, match=r"num_aus must be 2, .*\(AU01, AU02\), got 3"):
        create_model("me_graphau_stage1", num_aus=3, aus=[1, 2])


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="name must be new, got 'sacl', which is registered"):
        register_model("sacl", ModelConfig, paper="", outputs=(), losses={})(AUModel)


def test_the_class_of_a_model_must_be_registered() -> None:
    with pytest.raises(ValueError, match="registered class .*got Linear"):
        info_of(nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("aus", "k"), [("BP4D", 4), ("DISFA", 3), ("EmotioNet", 4), ([1, 2], 2), ([1, 2, 4, 6], 4)]
)
def test_default_k_follows_the_au_set(aus: object, k: int) -> None:
    info = model_info("me_graphau_stage1")
    assert make_config(info, AUSet.of(aus), {}).k == k
    assert make_config(info, AUSet.of(aus), {"k": 1}).k == 1


def test_config_survives_as_primitive_types() -> None:
    info = model_info("sacl")
    aus = AUSet.of("DISFA")
    config = make_config(info, aus, {"dims": [8, 16], "depths": (1, 1), "backbone": "rest_tiny"})
    assert config.dims == (8, 16)
    as_dict = config_dict(config)
    assert as_dict["dims"] == [8, 16]
    assert make_config(info, aus, as_dict) == config
