"""Published files of our backbones: what is read, and what is refused with which words."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from aurel.backbones import build_backbone

OPTIONS: dict[str, dict[str, Any]] = {
    "rest_tiny": {},
    "iresnet100": {"dims": (4, 8, 12, 16), "depths": (1, 2, 1, 1)},
    "inception_resnet_v1": {},
}
every_backbone = pytest.mark.parametrize("name", OPTIONS)


def published(name: str) -> dict[str, Tensor]:
    return timm.create_model(name, **OPTIONS[name]).state_dict()


def read(name: str, content: object, path: Path) -> Any:
    torch.save(content, path / "weights.pth")
    return build_backbone(name, checkpoint=path / "weights.pth", **OPTIONS[name])


@every_backbone
def test_prefixes_and_wrappers_come_off(name: str, tmp_path: Path) -> None:
    state = published(name)
    parallel = {f"module.{key}": value for key, value in state.items()}
    content = {"state_dict": parallel, "epoch": 3, "optimizer": {"param_groups": []}}
    backbone = read(name, content, tmp_path)
    actual = backbone.net.state_dict()
    assert actual
    assert all(torch.equal(value, state[key]) for key, value in actual.items())


@every_backbone
def test_all_that_does_not_fit_is_raised_at_once(name: str, tmp_path: Path) -> None:
    state = published(name)
    actual = list(build_backbone(name, **OPTIONS[name]).net.state_dict())
    missing, misshapen = actual[0], actual[-2]
    del state[missing]
    state[misshapen] = torch.zeros(2, 3, 5)
    state["surplus.weight"] = torch.zeros(1)
    with pytest.raises(RuntimeError) as raised:
        read(name, state, tmp_path)
    message = str(raised.value)
    assert f'Missing key(s) in state_dict: "{missing}"' in message
    assert 'Unexpected key(s) in state_dict: "surplus.weight"' in message
    assert f"size mismatch for {misshapen}: copying a param with shape torch.Size([2, 3" in message


@every_backbone
def test_what_is_no_state_dict_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"(?s)weights_only=True.*can run any code: .*pathlib"):
        read(name, {"state_dict": published(name), "args": Namespace(path=tmp_path)}, tmp_path)
    with pytest.raises(ValueError, match=r"weights.pth holds no state dict"):
        read(name, [1, 2, 3], tmp_path)
    for content in (b"not a torch file", b"hello"):
        (tmp_path / "weights.pth").write_bytes(content)
        with pytest.raises(ValueError, match=r"weights.pth cannot be read with torch.load"):
            build_backbone(name, checkpoint=tmp_path / "weights.pth", **OPTIONS[name])
