"""Models in folders and on the Hugging Face hub: safetensors, config.json and a model card."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from aurel.files import atomic_path
from aurel.models.base import AUModel
from aurel.models.checkpoint import describe, load_model, save_model
from aurel.models.model_card import model_card

WEIGHTS = "model.safetensors"


def save_pretrained(
    model: AUModel,
    folder: str | Path,
    *,
    protocol: str = "",
    scores: Mapping[str, float] | None = None,
    license: str = "other",
) -> None:
    """Write `model` into a folder: model.safetensors, config.json and README.md.

    Args:
        model: made by `create_model`.
        folder: the folder to write; it is created.
        protocol: training and test of the model in a sentence, for the model card.
        scores: by name, such as {"F1 AU12": 0.78}, for the model card.
        license: identifier of the hub, such as "mit"; "other" for one that the hub does not know.

    Raises:
        ValueError: the model is not registered.
    """
    folder = Path(folder)
    save_model(model, folder / WEIGHTS)
    config = json.dumps(describe(model), indent=2) + "\n"
    card = model_card(model, protocol=protocol, scores=scores or {}, license=license)
    for name, text in (("config.json", config), ("README.md", card)):
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def from_pretrained(source: str | Path, *, revision: str | None = None) -> AUModel:
    """Return the model in a folder of `save_pretrained`, or in a repository of the hub.

    Only model.safetensors is read, which holds no code: its header has the options and the AUs.

    Args:
        source: a folder, or a repository such as "owner/name".
        revision: branch, tag or commit of the repository.

    Returns:
        The model in eval mode, on the CPU.

    Raises:
        FileNotFoundError: no such folder or repository, or it has no model.safetensors.
        ValueError: the file is no checkpoint of this library.
        ImportError: huggingface_hub is not installed.
    """
    folder = Path(source)
    if folder.is_dir():
        if not (folder / WEIGHTS).is_file():
            raise FileNotFoundError(f"source must be a folder with {WEIGHTS}, got {folder}")
        return load_model(folder / WEIGHTS)
    hub = _hub()
    try:
        file = hub.hf_hub_download(str(source), WEIGHTS, revision=revision)
    except (hub.errors.HfHubHTTPError, hub.errors.LocalEntryNotFoundError) as error:
        raise FileNotFoundError(
            f"source must be a folder or a repository of the hub with {WEIGHTS}, got {source}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    except hub.errors.HFValidationError as error:
        raise FileNotFoundError(
            f"source must be a folder or a repository such as owner/name, got {source}"
        ) from error
    return load_model(file)


def push_to_hub(
    model: AUModel,
    repo: str,
    *,
    private: bool = True,
    protocol: str = "",
    scores: Mapping[str, float] | None = None,
    license: str = "other",
) -> str:
    """Upload `model` with its model card to a repository of the hub, and return its address.

    The token is that of `hf auth login` or of the environment variable HF_TOKEN.

    Args:
        model: made by `create_model`.
        repo: "owner/name"; it is created where it is missing.
        private: whether a new repository is private.
        protocol: see `save_pretrained`.
        scores: see `save_pretrained`.
        license: see `save_pretrained`.

    Raises:
        ImportError: huggingface_hub is not installed.
        OSError: the hub refuses the upload, or cannot be reached.
    """
    api = _hub().HfApi()
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder, protocol=protocol, scores=scores, license=license)
        address = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload an AUREL model")
    return str(address)


def _hub() -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise ImportError(
            "the Hugging Face hub needs huggingface-hub: pip install 'aurel-au[weights]'"
        ) from error
    return huggingface_hub
