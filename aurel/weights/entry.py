"""One entry of the registry of weights, and the checks of its values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import PurePosixPath
from typing import Any

_NAME = re.compile(r"[a-z0-9]+([_-][a-z0-9]+)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PREPROCESSING = {"size": int, "alignment": str, "mean": list, "std": list}


@dataclass(frozen=True)
class License:
    """The license of released files.

    Args:
        id: the name of its section in the registry.
        name: short name, such as "MIT".
        terms: what the owners ask for, in a few sentences, with the address of the text.
        agreement: whether the user must agree before the first download.
    """

    id: str
    name: str
    terms: str
    agreement: bool


@dataclass(frozen=True)
class Weights:
    """A released file.

    Args:
        name: the name for `get` and `load_weights`.
        file: its name in the cache; that of the archive where `member` is given.
        urls: addresses of the same content, tried in this order.
        license: its license.
        source: address of the page that offers the file.
        member: pattern of the path of the file inside of the archive `file`; None for no archive.
        model: name for `create_model`; None for a file that holds no model of this library.
        options: options of `create_model`, beside the AUs.
        aus: the AUs of the outputs in order: a list, or the name of a set.
        size: bytes of the file (of the member of an archive); None where it is not known.
        sha256: checksum of the file (of the member of an archive); None where none was published.
        preprocessing: `size` in pixels, `alignment` of the face, `mean` and `std` of the images.
        trained_on: names of the training data.
        reported: the scores that the authors report.
    """

    name: str
    file: str
    urls: tuple[str, ...]
    license: License
    source: str
    member: str | None = None
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    aus: str | tuple[int | str, ...] | None = None
    size: int | None = None
    sha256: str | None = None
    preprocessing: Mapping[str, Any] | None = None
    trained_on: tuple[str, ...] = ()
    reported: str = ""

    @property
    def cached_file(self) -> str:
        """The name of the file in the cache; a member of an archive has that of the entry."""
        return self.file if self.member is None else self.name + PurePosixPath(self.member).suffix


def make_entry(name: str, values: Mapping[str, Any], licenses: Mapping[str, License]) -> Weights:
    """Return the entry that a section of the registry describes.

    Args:
        name: the name of the entry.
        values: the fields of `Weights`; `license` is the name of a license.
        licenses: by name.

    Raises:
        ValueError: a field is missing, unknown, or has a bad value; the message names the entry.
    """
    known = {item.name: item for item in fields(Weights) if item.name != "name"}
    required = {
        key
        for key, item in known.items()
        if item.default is MISSING and item.default_factory is MISSING
    }
    _check(name, "fields", set(values), required <= set(values) <= set(known), "those of Weights")
    _check(name, "name", name, _NAME.fullmatch(name), "lower case letters, digits, _ and -")
    _check(name, "license", values["license"], values["license"] in licenses, "a known license")
    urls, sha256, size = values["urls"], values.get("sha256"), values.get("size")
    addresses = isinstance(urls, list) and urls and all(re.match("https?://", url) for url in urls)
    _check(name, "urls", urls, addresses, "a list of addresses")
    plain = PurePosixPath(values["file"]).name == values["file"]
    _check(name, "file", values["file"], plain, "a file name without folders")
    _check(name, "size", size, size is None or size > 0, "a positive number of bytes")
    digits = sha256 is None or _SHA256.fullmatch(sha256)
    _check(name, "sha256", sha256, digits, "64 hexadecimal digits")
    if values.get("model") is not None:
        _check_model(name, values)
    frozen: dict[str, Any] = {**values, "license": licenses[values["license"]]}
    for key in ("urls", "trained_on", "aus"):
        if isinstance(frozen.get(key), list):
            frozen[key] = tuple(frozen[key])
    return Weights(name=name, **frozen)


def _check_model(name: str, values: Mapping[str, Any]) -> None:
    """Raise ValueError where the weights of a model lack what a prediction needs."""
    for key in ("aus", "preprocessing", "trained_on", "reported"):
        _check(name, key, values.get(key), values.get(key), "given for weights of a model")
    about = values["preprocessing"]
    good = (
        isinstance(about, dict)
        and set(about) == set(_PREPROCESSING)
        and all(isinstance(about[key], kind) for key, kind in _PREPROCESSING.items())
        and len(about["mean"]) == len(about["std"]) == 3
    )
    _check(name, "preprocessing", about, good, "size, alignment, mean and std of three channels")


def _check(name: str, key: str, value: Any, good: object, expected: str) -> None:
    if not good:
        raise ValueError(f"{key} of the weights {name!r} must be {expected}, got {value!r}")
