"""The registry of models, and the creation of a model by its name."""

from __future__ import annotations

import difflib
import fnmatch
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib import import_module
from typing import Any, TypeVar

from torch import Tensor, nn

from aurel.facs import AUSet, AUSpec, default_au_set
from aurel.models.base import AUModel, Inputs, ModelConfig
from aurel.weights.registry import weights_of

M = TypeVar("M", bound=type[AUModel])

_models: dict[str, ModelInfo] = {}


@dataclass(frozen=True)
class AuthorLayout:
    """Names of the weights that the authors of a model released, and their conversion.

    Args:
        shapes: returns the keys of the authors' state dict that a given model needs, with shapes.
        convert: returns the authors' tensors under the names of a given model.
        adopt: changes a model so that it behaves as the authors' code where its defaults differ.
        ignored: endings of the keys that hold no learned values.
        other_heads: beginnings of the keys of heads that the model does not have.
        check_header: raises ValueError where the header of a safetensors file, called with
            (header, model), has other options than the model.
    """

    shapes: Callable[[Any], dict[str, tuple[int, ...]]]
    convert: Callable[[Mapping[str, Tensor], Any], dict[str, Tensor]]
    adopt: Callable[[Any], None] = lambda model: None
    ignored: tuple[str, ...] = ()
    other_heads: tuple[str, ...] = ()
    check_header: Callable[[Mapping[str, str], Any], None] = lambda header, model: None


@dataclass(frozen=True)
class Staging:
    """Initialization of a model from a trained model of another kind.

    Args:
        inherit: copies weights, called with (model, source); ValueError where they do not fit.
        fresh: prefixes of the names of the tensors that keep their initial values.
    """

    inherit: Callable[[Any, Any], object]
    fresh: tuple[str, ...]


@dataclass(frozen=True)
class ModelInfo:
    """One entry of the registry.

    Args:
        name: the name for `create_model`.
        model: the class, called as `model(config, aus, pretrained=...)`.
        config: its frozen dataclass; the fields are the options of `create_model`.
        summary: one line that describes the model.
        paper: its publication.
        outputs: the fields of `AUOutput` that it fills; none for an encoder, which returns
            embeddings, and from which other models start.
        losses: the paper's weight of each loss, by name.
        starts_from: the other kinds of models that it may start from, by name.
        author_layout: names of the weights that the authors' code writes; None without code.
        image_size: side of the paper's images in pixels.
        num_aus: number of AUs where the caller gives neither `aus` nor `num_aus`.
    """

    name: str
    model: type[AUModel]
    config: type[ModelConfig]
    summary: str
    paper: str
    outputs: tuple[str, ...]
    losses: Mapping[str, float]
    starts_from: Mapping[str, Staging] = field(default_factory=dict)
    author_layout: AuthorLayout | None = None
    image_size: int = 224
    num_aus: int = 12

    @property
    def inputs(self) -> Inputs:
        """The kind of its inputs: "images", "clips" or "triplets", see `AUModel`."""
        return self.model.inputs

    @property
    def takes_clips(self) -> bool:
        """Whether the input is clips (B, T, 3, H, W) instead of images (B, 3, H, W)."""
        return self.inputs == "clips"

    @property
    def predicts_aus(self) -> bool:
        """Whether it returns an `AUOutput` instead of embeddings."""
        return self.inputs != "triplets"

    @property
    def weights_released(self) -> bool:
        """Whether the authors released a file, which `load_weights` downloads and reads."""
        return bool(weights_of(self.name))

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the options, the fields of `config`."""
        return tuple(option.name for option in fields(self.config))


def register_model(
    name: str,
    config: type[ModelConfig],
    *,
    paper: str,
    outputs: Sequence[str],
    losses: Mapping[str, float],
    starts_from: Mapping[str, Staging] | None = None,
    author_layout: AuthorLayout | None = None,
    image_size: int = 224,
    num_aus: int = 12,
) -> Callable[[M], M]:
    """Register a model class; the first line of its docstring is the summary.

    Args:
        name: a new name.
        config: frozen dataclass of the options.
        paper: the publication of the model.
        outputs: the fields of `AUOutput` that it fills.
        losses: the paper's weight of each loss, by name (see `aurel.training.objective`).
        starts_from: the other kinds of models that it may start from, by name.
        author_layout: names of the weights that the authors' code writes; None without code.
        image_size: side of the paper's images in pixels.
        num_aus: number of AUs where the caller gives neither `aus` nor `num_aus`.

    Raises:
        ValueError: the name is taken.
    """

    def register(model: M) -> M:
        if name in _models:
            raise ValueError(f"name must be new, got {name!r}, which is registered")
        _models[name] = ModelInfo(
            name=name,
            model=model,
            config=config,
            summary=(model.__doc__ or "").strip().split("\n")[0],
            paper=paper,
            outputs=tuple(outputs),
            losses=dict(losses),
            starts_from=dict(starts_from or {}),
            author_layout=author_layout,
            image_size=image_size,
            num_aus=num_aus,
        )
        return model

    return register


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the AU models that match a shell-style `pattern`, sorted."""
    models = (name for name, info in _registry().items() if info.predicts_aus)
    return sorted(fnmatch.filter(models, pattern))


def model_info(name: str) -> ModelInfo:
    """Return the registry's entry for `name`.

    Raises:
        ValueError: no such model; the message lists the nearest names.
    """
    known = _registry()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        raise ValueError(
            f"name must be that of a model, got {name!r}; nearest: {', '.join(close or known)}"
        )
    return known[name]


def info_of(model: nn.Module) -> ModelInfo:
    """Return the registry's entry of the class of `model`.

    Raises:
        ValueError: the class of `model` is not registered.
    """
    for info in _registry().values():
        if type(model) is info.model:
            return info
    raise ValueError(
        f"model must be of a registered class ({', '.join(list_models())}), got "
        f"{type(model).__name__}"
    )


def create_model(
    name: str,
    *,
    num_aus: int | None = None,
    aus: AUSpec | None = None,
    backbone: str | None = None,
    pretrained: bool = False,
    weights: str | None = None,
    **options: Any,
) -> AUModel:
    """Return a new model by its name, or one with released weights.

    Args:
        name: one of `list_models()`.
        num_aus: number of AUs; where `aus` is not given either, 12, or 41 for `open_graphau*`. 12
            are the AUs of BP4D, 8 those of DISFA, 41 those of OpenGraphAU.
        aus: the AUs in the order of the output's columns: "BP4D", [1, 2, 4], an `AUSet`.
        backbone: name of the image backbone; None for the paper's.
        pretrained: load the published weights of the backbone.
        weights: released weights, one of `aurel.weights.list_weights()`, of which the AUs and the
            options are; see `load_weights`.
        **options: fields of the model's config.

    Returns:
        The model, with `.aus` and `.config`; called with images (B, 3, H, W), normalized with
        ImageNet's mean and standard deviation, it returns an `AUOutput`.

    Raises:
        ValueError: the model is unknown, `num_aus` is not the number of `aus`, or `weights` are of
            another model, or given with AUs or options.
        TypeError: an option is unknown, or `backbone` is not a name.
    """
    info = model_info(name)
    if weights is not None:
        given = (num_aus, aus, backbone, pretrained or None, *options.values())
        if weights not in weights_of(name) or any(value is not None for value in given):
            raise ValueError(
                f"weights of {name} must be one of {', '.join(weights_of(name)) or 'none'}, given "
                f"without AUs and options, which are those of the weights; got {weights!r}"
            )
        from aurel.models.released import load_weights  # it calls this function

        return load_weights(weights)
    au_set = _au_set(info, num_aus, aus)
    if backbone is not None:
        if not isinstance(backbone, str):
            raise TypeError(
                f'backbone must be a name, such as "resnet50", got {type(backbone).__name__}'
            )
        options["backbone"] = backbone
    return info.model(make_config(info, au_set, options), au_set, pretrained=pretrained)


def make_config(info: ModelInfo, aus: AUSet, options: Mapping[str, Any]) -> ModelConfig:
    """Return the config of model `info` for `aus`: the paper's defaults, then `options`."""
    unknown = [option for option in options if option not in info.options]
    if unknown:
        raise TypeError(
            f"options of {info.name} must be among {', '.join(info.options)}, got "
            f"{', '.join(map(repr, unknown))}"
        )
    values = {**info.config.defaults(aus, options), **options}
    return info.config(**{key: _with_tuples(value) for key, value in values.items()})


def config_dict(config: ModelConfig) -> dict[str, Any]:
    """Return the config as a dict of primitive types, which `make_config` accepts as options."""
    return {key: _with_lists(value) for key, value in asdict(config).items()}


def _registry() -> dict[str, ModelInfo]:
    _import_models()
    return _models


@cache
def _import_models() -> None:
    """Import every module of this package, which registers its models."""
    for module in pkgutil.iter_modules(import_module("aurel.models").__path__):
        import_module(f"aurel.models.{module.name}")


def _au_set(info: ModelInfo, num_aus: int | None, aus: AUSpec | None) -> AUSet:
    if aus is None:
        return default_au_set(info.num_aus if num_aus is None else num_aus)
    chosen = AUSet.of(aus)
    if num_aus is not None and num_aus != len(chosen):
        raise ValueError(
            f"num_aus must be {len(chosen)}, the number of aus ({', '.join(chosen.names)}), got "
            f"{num_aus}"
        )
    return chosen


def _with_tuples(value: Any) -> Any:
    return tuple(map(_with_tuples, value)) if isinstance(value, list | tuple) else value


def _with_lists(value: Any) -> Any:
    return list(map(_with_lists, value)) if isinstance(value, list | tuple) else value
