"""`aurel convert`, from files with the keys and shapes that authors released."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from aurel.cli.main import main
from aurel.facs import AUSet
from aurel.models.checkpoint import load_model, read_checkpoint
from aurel.models.registry import create_model

# One file of each family: the list of its keys, and the AUs on the command line.
FAMILIES = {
    "me_graphau_stage1": ("me_graphau_stage1_resnet50_disfa", "DISFA"),
    "me_graphau": ("me_graphau_stage2_resnet50_bp4d", "BP4D"),
    "open_graphau_stage1": ("open_graphau_stage1_resnet50", "OpenGraphAU"),
    "open_graphau": ("open_graphau_stage2_resnet50", "OpenGraphAU"),
    "macg": ("macg_resnet50_emotionet", "EmotioNet"),
    "mdhr": ("mdhr_resnet50_disfa", "DISFA"),
}


def author_file(shapes: dict[str, Any], path: Path, wrapped: bool = True) -> dict[str, Tensor]:
    """Write a file in which the i-th tensor is full of i, stored as one number each."""
    state = {}
    for index, (key, shape) in enumerate(shapes.items()):
        dtype = torch.long if key.endswith("tracked") else torch.float
        state[key] = torch.tensor(index, dtype=dtype).expand(shape)
    prefixed = {f"module.{key}": value for key, value in state.items()}
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4}]}
    content = {"epoch": 3, "state_dict": prefixed, "optimizer": optimizer}
    torch.save(content if wrapped else state, path)
    return state


def sums(state: dict[str, Tensor]) -> Tensor:
    """Return the number of entries of each value, without counters of batches."""
    total = torch.zeros(700, dtype=torch.long)
    for key, tensor in state.items():
        if not key.endswith("tracked") and tensor.numel():
            values, counts = tensor.flatten().unique_consecutive(return_counts=True)
            total.index_add_(0, values.long(), counts)
    return total


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family(
    name: str,
    released: Callable[[str], dict[str, list[int]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    listed, aus = FAMILIES[name]
    author = author_file(released(listed), tmp_path / "fold1.pth", wrapped=name != "mdhr")
    out = tmp_path / "models" / "model.safetensors"
    options = ["--option", "k=2"] if name.endswith("stage1") else []
    arguments = ["--model", name, "--aus", aus, *options, "--out", str(out)]
    assert main(["convert", str(tmp_path / "fold1.pth"), *arguments]) == 0
    message = capsys.readouterr().out
    assert message.startswith(f"{name}, {len(AUSet.of(aus))} AUs, ") and str(out) in message
    assert os.listdir(out.parent) == ["model.safetensors"]
    checkpoint = read_checkpoint(out)
    assert checkpoint.aus == AUSet.of(aus) and checkpoint.aus.name == aus
    assert checkpoint.metadata == {"converted_from": "fold1.pth"}
    used = {k: v for k, v in author.items() if not k.startswith("head.class_linear.")}
    assert torch.equal(sums(checkpoint.state_dict), sums(used))
    with torch.device("meta"):
        config = create_model(name, aus=aus).config
    options_now = checkpoint.config
    if hasattr(config, "ties"):
        assert options_now["ties"] == "all"
    if name.startswith("open_graphau"):
        assert options_now["lateral_parents"] == "released"
    if options:
        assert options_now["k"] == 2


def small_author_file(path: Path) -> Any:
    """Write the input of `convert` for a ResNet-18 with five AUs, with the keys of its layout."""
    from aurel.models.registry import info_of

    model = create_model("me_graphau_stage1", aus=[1, 2, 4, 12, 15], backbone="resnet18")
    layout = info_of(model).author_layout
    assert layout is not None
    state = {
        key: torch.rand(shape) if not key.endswith("tracked") else torch.tensor(2)
        for key, shape in layout.shapes(model).items()
    }
    torch.save({"state_dict": state}, path)
    return state


SMALL = ["--model", "me_graphau_stage1", "--aus", "1,2,4,12,15", "--backbone", "resnet18"]
OUT = ["--out", "m.safetensors"]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    state = small_author_file(tmp_path / "a.pth")
    out = tmp_path / "m.safetensors"
    assert main(["convert", str(tmp_path / "a.pth"), *SMALL, "--out", str(out)]) == 0
    model = load_model(out)
    assert model.aus.names == ("AU01", "AU02", "AU04", "AU12", "AU15")
    assert model.config.backbone == "resnet18" and model.config.ties == "all"
    torch.testing.assert_close(model.head.classifier.prototypes, state["head.sc"])
    assert model(torch.randn(2, 3, 64, 64)).probs.shape == (2, 5)
    with safe_open(out, framework="pt") as file:
        assert set(file.keys()) == set(model.state_dict())
        assert json.loads(file.metadata()["aurel"])["model"] == "me_graphau_stage1"


def test_predict_reads_it(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    small_author_file(tmp_path / "a.pth")
    out = tmp_path / "m.safetensors"
    assert main(["convert", str(tmp_path / "a.pth"), *SMALL, "--out", str(out)]) == 0
    image.new("RGB", (96, 96), (200, 150, 120)).save(tmp_path / "face.png")
    arguments = [str(tmp_path / "face.png"), "--cropped", "--csv-only", "--device", "cpu"]
    arguments += ["--checkpoint", str(out), "--out", str(tmp_path / "found")]
    assert main(["predict", *arguments]) == 0
    header = (tmp_path / "found" / "tables" / "face.csv").read_text().splitlines()[0]
    assert "AU12" in header.split(",") and "AU06" not in header.split(",")


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("opened",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: (state.pop("head.sc"), state.update(extra=torch.zeros(1))),
            "missing: head.sc (5, 128) superfluous: extra",
        ),
        (
            lambda state: state.update({"head.sc": torch.zeros(8, 128)}),
            "shape: head.sc must be (5, 128), got (8, 128)",
        ),
        (
            lambda state: state.update(epoch=Trap()),
            "because a pickle can run any code: it needs posix.mkdir\n",
        ),
        (lambda state: state.update(epoch=3), "tensors only, got others: epoch"),
    ],
    ids=["keys", "shape", "code", "no tensor"],
)
def test_what_does_not_fit_is_one_line_and_nothing_is_written(
    change: Any,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    state = small_author_file(Path("a.pth"))
    change(state)
    torch.save({"state_dict": state}, "a.pth")
    assert main(["convert", "a.pth", *SMALL, *OUT]) == 2
    stderr = capsys.readouterr().err
    assert message in stderr and stderr.count("\n") == 1
    assert os.listdir() == ["a.pth"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.pth", "--out", "m.pth"], "--out must end in .safetensors, got m.pth"),
        (["gone.pth", *OUT], "no file at gone.pth"),
        (["a.pth", *OUT, "--option", "k"], "--option must be NAME=VALUE, got 'k'"),
        (
            ["a.pth", *OUT, "--option", "kk=1"],
            "must be among backbone, relation_head, channels, k, metric, ties, got 'kk'",
        ),
        (["a.pth", *OUT, "--aus", "12"], "aus must be one of BP4D,"),
        (["a.pth", *OUT, "--model", "sacl"], "released weights, got sacl"),
        (["a.pth", *OUT, "--model", "mgraph"], "name must be that of a model, got 'mgraph'"),
        (["a.pth", *OUT], "a.pth cannot be read with torch.load"),
    ],
)
def test_bad_arguments_are_one_line_and_code_two(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.pth").write_text("no weights")
    assert main(["convert", *SMALL, *arguments]) == 2
    stderr = capsys.readouterr().err
    assert message in stderr and stderr.count("\n") == 1
    assert os.listdir() == ["a.pth"]


@pytest.mark.parametrize(
    ("text", "value"), [("4", 4), ("[1, 2]", [1, 2]), ("cosine", "cosine"), ("a=b", "a=b")]
)
def test_values_of_options(text: str, value: object) -> None:
    from aurel.cli.convert import _options

    assert _options([f"name={text}"]) == {"name": value}
