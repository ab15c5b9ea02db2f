"""All layers take their tensors in one order, a mask by position, and `return_graph` by keyword."""

from __future__ import annotations

import inspect

import pytest

from aurel import layers

KEYWORD, POSITIONAL = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD


@pytest.mark.parametrize("name", layers.__all__)
def test_forward_takes_tensors_then_a_mask_then_options_by_keyword(name: str) -> None:
    first, *parameters = inspect.signature(getattr(layers, name).forward).parameters.values()
    assert first.name == "self"
    kinds = [parameter.kind for parameter in parameters]
    assert set(kinds) <= {POSITIONAL, KEYWORD}
    assert {p.name for p in parameters if p.kind is KEYWORD} <= {"return_graph"}
    names = [parameter.name for parameter in parameters]
    if "return_graph" in names:
        graph = parameters[names.index("return_graph")]
        assert (graph.kind, graph.default, graph.annotation) == (KEYWORD, False, "bool")
    if "mask" in names:
        place = names.index("mask")
        assert parameters[place].default is None
        assert parameters[place].annotation == "Tensor | None"
        required = [p.name for p in parameters if p.default is inspect.Parameter.empty]
        assert required == names[: len(required)] and len(required) <= place
        after = [p for p in parameters[place + 1 :] if p.kind is POSITIONAL]
        assert all(p.annotation == "Tensor | None" and p.default is None for p in after)


@pytest.mark.parametrize("name", layers.__all__)
def test_all_parameters_have_types(name: str) -> None:
    for method in ("__init__", "forward"):
        signature = inspect.signature(getattr(getattr(layers, name), method))
        parameters = [*signature.parameters.values()][1:]
        if method == "__init__" and any(p.kind is p.VAR_POSITIONAL for p in parameters):
            continue  # `nn.Module`'s, of a layer without options
        assert all(p.annotation is not p.empty for p in parameters)
        assert signature.return_annotation is not signature.empty
