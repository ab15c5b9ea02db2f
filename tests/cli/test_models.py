"""Sizes in the list of models."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from aurel.cli.main import main
from aurel.cli.models import size_of
from aurel.models.registry import create_model, list_models
from aurel.ops.flop_formulas import flop_formulas

# Parameters of the authors' code with its defaults, without those that it never uses.
PARAMETERS = {
    "me_graphau_stage1": 28_253_784,
    "me_graphau": 31_666_132,
    "open_graphau_stage1": 32_223_862,
    "open_graphau": 35_637_698,
    "macg": 29_987_544 - 263_680,
    "mdhr": 93_226_054,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_of_the_authors(name: str) -> None:
    assert size_of(name)[0] == PARAMETERS[name]


@pytest.mark.parametrize("name", list_models())
def test_every_model_has_a_size(name: str) -> None:
    parameters, operations = size_of(name)
    assert 2e7 < parameters < 1e8 or name == "au_windows"
    # Every weight is used in a product; the largest network takes 60 G.
    assert 0.1 * parameters < operations < 1e11


def test_the_count_is_that_of_a_real_forward_pass() -> None:
    model = create_model("me_graphau").eval()
    with FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter:
        model(torch.zeros(1, 3, 224, 224))
    assert size_of("me_graphau") == (
        sum(parameter.numel() for parameter in model.parameters()),
        counter.get_total_flops() // 2,
    )


def test_fused_transformer_layers_hide_nothing() -> None:
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        assert size_of.__wrapped__("lrp_fgg") == size_of("lrp_fgg")
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lrp_fgg", "112 x 112 none released"),
        ("gtle_net", "256 x 256 none released"),
        ("macg", "29.72 M 4.32 G 224 x 224 none released; layout known"),
        ("openface3", "22.05 M 0.43 G 224 x 224 released"),
    ],
)
def test_the_table_says_for_which_image(
    name: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", name]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(name))
    assert text in " ".join(row.split())
