"""Models on disk: the weights, with the name, the options and the AUs of their model."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aurel.backbones.build import NO_PICKLE
from aurel.facs import AUSet
from aurel.files import atomic_path, check_regular, save_torch
from aurel.models.base import AUModel
from aurel.models.header import check_content, check_model, names_file
from aurel.models.registry import config_dict, info_of, make_config, model_info

FORMAT = 1
SAFETENSORS = ".safetensors"
_PRIMITIVE = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file of weights.

    Args:
        model: registered name of the model.
        config: its options, primitive types only.
        aus: the AUs of its outputs.
        state_dict: its parameters and buffers.
        metadata: further values that were saved with it (fold, scores, ...).
        trained_on: names of the training data; empty where unknown.
        preprocessing: of the images, see `AUModel`; None where unknown.
    """

    model: str
    config: dict[str, Any]
    aus: AUSet
    state_dict: dict[str, Tensor]
    metadata: dict[str, Any]
    trained_on: tuple[str, ...] = ()
    preprocessing: Mapping[str, Any] | None = None


def describe(model: AUModel) -> dict[str, Any]:
    """Return the description of `model` in a file.

    Its keys are format, model, config, aus and, where they are known, trained_on and preprocessing.
    Primitive types only, so that `torch.load(weights_only=True)` reads it. A training framework's
    checkpoint that stores this under the key "aurel", and the model's state dict with the prefix
    "model.", is read by `load_model` too.
    """
    about = {
        "format": FORMAT,
        "model": info_of(model).name,
        "config": config_dict(model.config),
        "aus": model.aus.to_dict(),
    }
    if model.trained_on:
        about["trained_on"] = list(model.trained_on)
    if model.preprocessing is not None:
        about["preprocessing"] = dict(model.preprocessing)
    return about


def save_model(model: AUModel, path: str | Path, **metadata: Any) -> None:
    """Write a registered model to `path`; after an error there is no incomplete file.

    A name that ends in .safetensors makes a safetensors file: the weights under the model's own
    names, the result of `describe` and the metadata as JSON in the header. Any other name makes a
    torch file.

    Args:
        model: made by `create_model`.
        path: the file to write; missing folders are created.
        **metadata: numbers, strings, None, tensors (in torch files), and lists or dicts of them.

    Raises:
        ValueError: a metadata value is of another type, or the model is not registered.
    """
    _check_metadata(metadata, "metadata", tensors=Path(path).suffix != SAFETENSORS)
    content = {
        "aurel": describe(model),
        "state_dict": model.state_dict(),
        "metadata": metadata,
    }
    if Path(path).suffix == SAFETENSORS:
        with atomic_path(path) as temporary:
            _write_safetensors(content, temporary)
    else:
        save_torch(content, path)


@names_file
def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a file of `save_model`, or a training checkpoint that holds `describe(model)`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read with `weights_only=True`, is no such checkpoint, or has
            a malformed header; the message names the file.
    """
    safe = Path(path).suffix == SAFETENSORS
    content = _read_safetensors(path) if safe else load_weights_only(path)
    about = content.get("aurel")
    if not isinstance(about, Mapping) or "state_dict" not in content:
        raise ValueError(
            f"{path} must be a checkpoint of aurel, got a file that holds {_first_keys(content)}; "
            "load_author_checkpoint reads weights that the authors of a paper released"
        )
    if about.get("format") != FORMAT:
        raise ValueError(
            f"the format of {path} must be {FORMAT}, which this version of aurel reads, got "
            f"{about.get('format')}"
        )
    check_content(about, content["state_dict"], content.get("metadata", {}))
    state: dict[str, Tensor] = content["state_dict"]
    if any(key.startswith("model.") for key in state):
        prefix = "model."
        state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return Checkpoint(
        model=about["model"],
        config=about["config"],
        aus=AUSet.from_dict(about["aus"]),
        state_dict=state,
        metadata=content.get("metadata", {}),
        trained_on=tuple(about.get("trained_on", ())),
        preprocessing=about.get("preprocessing"),
    )


@names_file
def load_model(path: str | Path, *, allow_hub: bool = False) -> AUModel:
    """Return the model that a file describes, with its weights, on the CPU and in eval mode.

    The file may come from a stranger: it runs no code, and no memory is taken before its tensors
    are found to be those of the model that it describes, of at most 2 billion numbers.

    Args:
        path: a file written by `save_model` or by training.
        allow_hub: accept a backbone whose name makes timm read a description over the network or
            from another folder, such as "hf_hub:owner/model".

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no such checkpoint, or its weights do not fit the model it names;
            the message names the file.
    """
    checkpoint = read_checkpoint(path)
    info = model_info(checkpoint.model)
    check_model(info, checkpoint.config, checkpoint.aus, checkpoint.state_dict, allow_hub)
    config = make_config(info, checkpoint.aus, checkpoint.config)
    model = info.model(config, checkpoint.aus, pretrained=False)
    _load(model, checkpoint, path)
    model.trained_on, model.preprocessing = checkpoint.trained_on, checkpoint.preprocessing
    return model.eval()


def load_weights_only(path: str | Path) -> dict[str, Any]:
    """Read a dict onto the CPU by `torch.load(weights_only=True)`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file holds no dict, is no torch file, or needs code to run to be read; or
            it is no regular file.
    """
    check_regular(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (*NO_PICKLE, pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(
            f"{path} cannot be read with torch.load(weights_only=True), and no other way is tried, "
            f"because a pickle can run any code: {_reason(error)}"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a dict, got {type(content).__name__}")
    return content


def _reason(error: Exception) -> str:
    """Return the fault of a file, without torch's advice on how to open it unsafely."""
    if refused := re.search(r"GLOBAL (\S+) (was not an allowed|whose module)", str(error)):
        return f"it needs {refused[1]}"
    if isinstance(error, NO_PICKLE):
        return "it is no torch file"
    inner = re.search(r"WeightsUnpickler error: *(\S.*)", str(error))
    return inner[1] if inner else str(error)


def _write_safetensors(content: Mapping[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    state = {key: tensor.contiguous() for key, tensor in content["state_dict"].items()}
    header = {key: json.dumps(content[key]) for key in ("aurel", "metadata")}
    # save_file makes a file that only its owner may read; the umask shall decide that.
    path.touch()
    mode = path.stat().st_mode
    save_file(state, path, metadata=header)
    path.chmod(mode)


def read_safetensors(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the header and the tensors of a safetensors file, on the CPU.

    Raises:
        ValueError: the file is no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    check_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as a safetensors file: {error}") from error
    return header, state


def _read_safetensors(path: str | Path) -> dict[str, Any]:
    header, state = read_safetensors(path)
    about: dict[str, Any] = {
        key: json.loads(header[key]) for key in ("aurel", "metadata") if key in header
    }
    return {**about, "state_dict": state}


def _load(model: AUModel, checkpoint: Checkpoint, path: str | Path) -> None:
    try:
        model.load_state_dict(checkpoint.state_dict)
    except RuntimeError as error:
        raise ValueError(
            f"the weights in {path} must fit {checkpoint.model}, got others: {error}"
        ) from error


def _check_metadata(value: Any, where: str, tensors: bool) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check_metadata(key, f"a key of {where}", tensors)
            _check_metadata(item, f"{where}[{key!r}]", tensors)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_metadata(item, f"{where}[{index}]", tensors)
    elif not (type(value) in _PRIMITIVE or (tensors and isinstance(value, Tensor))):
        kinds = "bool, None, tensor, list" if tensors else "bool, None, list"
        raise ValueError(
            f"{where} must be a str, int, float, {kinds}, tuple or dict, which can be read back "
            f"safely, got {type(value).__module__}.{type(value).__name__}"
        )


def _first_keys(content: Mapping[str, Any]) -> str:
    keys = [str(key) for key in content]
    return ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")
